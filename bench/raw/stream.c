/*
 * One end of a TCP connection, the same program in both guests: as much as a guest can take or give, with few system calls.
 *
 * usage: stream in|out ADDRESS PORT BYTES
 *
 * It connects and says how many bytes there will be, in eight bytes, the lowest first; then it reads them, or writes them and waits for one
 * byte, by which the other end says that it has them all.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char buffer[256 << 10];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	uint64_t left = strtoull(argv[4], NULL, 10);
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
	inet_pton(AF_INET, argv[2], &to.sin_addr);
	int sock = socket(AF_INET, SOCK_STREAM, 0), in = !strcmp(argv[1], "in");
	if (sock < 0 || connect(sock, (struct sockaddr *)&to, sizeof to))
		die("connect");
	if (write(sock, &left, sizeof left) != sizeof left)
		die("size");
	while (left) {
		size_t want = left < sizeof buffer ? left : sizeof buffer;
		ssize_t done = in ? read(sock, buffer, want) : write(sock, buffer, want);
		if (done <= 0)
			die(argv[1]);
		left -= done;
	}
	if (!in && read(sock, buffer, 1) != 1)
		die("answer");
	return 0;
}
