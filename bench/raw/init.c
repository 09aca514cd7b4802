/*
 * The first process of the raw side's guest: what a tiny C program can do over one virtio-serial port, with no protocol in the way.
 *
 * It loads /modules, opens the port, sends one RESPONSE when it is ready, then serves one request after another. Every message, both ways,
 * is the 44-byte header of a VIRTIO socket packet (VIRTIO 1.2, section 5.10.6) and its payload:
 *
 *   host -> guest   REQUEST     payload: argv, each string ended by NUL; dst_port: the child's descriptor that is a pipe, 1 or 0
 *   dst_port 1      guest sends RW frames with the child's output, then RESPONSE
 *   dst_port 0      host sends RW frames with the child's input, then SHUTDOWN; guest sends RESPONSE
 *   RESPONSE        the child ended; flags: its wait status
 *   MOUNT           payload: device, file system type, options; the guest waits for the device, mounts it read-only on /m, sends RESPONSE
 *   SET_UP          payload: interface, its address, its gateway; the guest waits for the interface, sets it up, sends RESPONSE
 *   UNMOUNT         payload: device; the guest takes /m off and sends RESPONSE, and once more when the device is gone, if it goes
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/route.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REQUEST = 1, RESPONSE = 2, SHUTDOWN = 4, RW = 5, MOUNT = 16, UNMOUNT = 17, SET_UP = 18 };

struct header {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

enum { ARGUMENTS = 64, PAYLOAD = 64 << 10, PORT_WRITE = 32 << 10 }; /* the port takes at most 32 KiB in one write */

static struct {
	struct header header;
	char payload[PAYLOAD];
} __attribute__((packed)) frame;
static int port;

static void die(const char *what)
{
	perror(what);
	_exit(1); /* the kernel panics: the host sees its connection close */
}

static void send_frame(uint16_t op, uint32_t len, uint32_t flags)
{
	frame.header = (struct header){.type = 1, .op = op, .len = len, .flags = flags};
	const char *from = (const char *)&frame;
	for (size_t left = sizeof frame.header + len; left;) {
		ssize_t sent = write(port, from, left);
		if (sent < 0)
			die("write to the port");
		from += sent;
		left -= sent;
	}
}

static void receive(void *to, size_t left)
{
	for (char *at = to; left;) {
		ssize_t got = read(port, at, left); /* at most a page: the driver's receive buffers are that big */
		if (got <= 0)
			die("read from the port");
		at += got;
		left -= got;
	}
}

static void receive_frame(void)
{
	receive(&frame.header, sizeof frame.header);
	if (frame.header.len > PAYLOAD)
		die("frame too long");
	receive(frame.payload, frame.header.len);
}

static void load_modules(void)
{
	char path[256];
	FILE *list = fopen("/modules", "re");
	while (list && fgets(path, sizeof path, list)) {
		path[strcspn(path, "\n")] = 0;
		int file = open(path, O_RDONLY | O_CLOEXEC);
		if (file < 0 || syscall(SYS_finit_module, file, "", 0))
			die(path);
		close(file);
	}
	if (list)
		fclose(list);
}

static void open_port(void)
{
	char event[4096];
	int watch = inotify_init1(IN_CLOEXEC);
	inotify_add_watch(watch, "/dev", IN_CREATE);
	load_modules();
	while ((port = open("/dev/vport0p1", O_RDWR | O_CLOEXEC)) < 0)
		if (errno == ENXIO)
			sched_yield(); /* the driver makes the node a moment before it knows the port */
		else if (read(watch, event, sizeof event) < 0)
			die("inotify");
	close(watch);
}

/* Starts the request's child with its descriptor `child_end` (0 or 1) on a pipe; returns our end of the pipe. */
static int start(pid_t *child, int child_end)
{
	char *argv[ARGUMENTS + 1];
	int ends[2], count = 0;
	for (char *at = frame.payload; at < frame.payload + frame.header.len && count < ARGUMENTS; at += strlen(at) + 1)
		argv[count++] = at;
	argv[count] = NULL;
	if (pipe2(ends, O_CLOEXEC))
		die("pipe");
	*child = vfork();
	if (*child == 0) {
		dup2(ends[child_end], child_end);
		execv(argv[0], argv);
		_exit(127);
	}
	close(ends[child_end]);
	return ends[!child_end];
}

static void relay_out(int from)
{
	ssize_t got;
	while ((got = read(from, frame.payload, PORT_WRITE - sizeof frame.header)) > 0)
		send_frame(RW, got, 0);
}

static void relay_in(int to)
{
	for (receive_frame(); frame.header.op == RW; receive_frame()) {
		const char *from = frame.payload;
		for (ssize_t left = frame.header.len, put; left > 0 && (put = write(to, from, left)) > 0; left -= put)
			from += put; /* when the child stopped reading, the rest is swallowed: SIGPIPE does not kill the first process */
	}
}

/* Waits until there is a node in /dev, or none. */
static void wait_for(const char *node, int there)
{
	char event[4096];
	int watch = inotify_init1(IN_CLOEXEC);
	inotify_add_watch(watch, "/dev", IN_CREATE | IN_DELETE);
	while ((access(node, F_OK) == 0) != there)
		if (read(watch, event, sizeof event) < 0)
			die("inotify");
	close(watch);
}

static void mount_device(void)
{
	const char *node = frame.payload, *type = node + strlen(node) + 1, *options = type + strlen(type) + 1;
	wait_for(node, 1);
	mkdir("/m", 0700);
	while (mount(node, "/m", type, MS_RDONLY, options))
		if (errno == ENXIO)
			sched_yield(); /* the node is there a moment before the device */
		else
			die(node);
	send_frame(RESPONSE, 0, 0);
}

static void unmount_device(void)
{
	char node[64];
	int goes = frame.header.flags;
	strncpy(node, frame.payload, sizeof node - 1);
	node[sizeof node - 1] = 0;
	if (umount("/m"))
		die("umount");
	send_frame(RESPONSE, 0, 0);
	if (goes) {
		wait_for(node, 0);
		send_frame(RESPONSE, 0, 0);
	}
}

static struct sockaddr address_of(const char *text)
{
	union {
		struct sockaddr any;
		struct sockaddr_in four;
	} address = {.four = {.sin_family = AF_INET}};
	inet_pton(AF_INET, text, &address.four.sin_addr);
	return address.any;
}

static void set_up(void)
{
	char event[8192], *name = frame.payload, *address = name + strlen(name) + 1, *gateway = address + strlen(address) + 1;
	struct sockaddr_nl links = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
	int watch = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (bind(watch, (struct sockaddr *)&links, sizeof links))
		die("netlink");
	struct ifreq wish = {0};
	snprintf(wish.ifr_name, sizeof wish.ifr_name, "%.15s", name);
	while (ioctl(sock, SIOCGIFINDEX, &wish))
		if (recv(watch, event, sizeof event, 0) < 0)
			die("link events");
	wish.ifr_addr = address_of(address);
	if (ioctl(sock, SIOCSIFADDR, &wish))
		die("address");
	wish.ifr_addr = address_of("255.255.255.0");
	if (ioctl(sock, SIOCSIFNETMASK, &wish))
		die("mask");
	wish.ifr_flags = IFF_UP;
	if (ioctl(sock, SIOCSIFFLAGS, &wish))
		die("up");
	struct rtentry way = {.rt_dst = address_of("0.0.0.0"), .rt_genmask = address_of("0.0.0.0"), .rt_gateway = address_of(gateway)};
	way.rt_flags = RTF_UP | RTF_GATEWAY;
	if (ioctl(sock, SIOCADDRT, &way))
		die("route");
	close(watch);
	close(sock);
	send_frame(RESPONSE, 0, 0);
}

int main(void)
{
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	open_port();
	send_frame(RESPONSE, 0, 0); /* blocks until the host's end is connected; before that a read would return 0 */
	for (;;) {
		pid_t child;
		int status = 0;
		receive_frame();
		if (frame.header.op == MOUNT || frame.header.op == UNMOUNT) {
			(frame.header.op == MOUNT ? mount_device : unmount_device)();
			continue;
		}
		if (frame.header.op == SET_UP) {
			set_up();
			continue;
		}
		int child_end = frame.header.dst_port == 1;
		int end = start(&child, child_end);
		(child_end ? relay_out : relay_in)(end);
		close(end);
		waitpid(child, &status, 0);
		send_frame(RESPONSE, 0, status);
	}
}
