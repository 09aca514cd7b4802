/* A host service for tests: the functions of vmcompute.dll, computecore.dll, computestorage.dll, ole32.dll,
 * kernel32.dll and advapi32.dll that the driver calls, with the same signatures, text in UTF-16,
 * handles, HRESULTs, and notifications on a thread of its own.
 *
 * It keeps small systems and processes that live and end, records every call, counts handles, texts and registrations, and answers as a
 * test has scripted. One lock guards everything; it is never held while a notification is passed on. */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef uint16_t wide;
typedef int32_t HRESULT;
typedef void (*callback)(uint32_t kind, void *context, HRESULT status, wide *data);
struct information { uint32_t process_id, reserved; void *std_input, *std_output, *std_error; };

enum { PENDING = 0xC0370103, INVALID_STATE = 0xC0370105, UNEXPECTED_EXIT = 0xC0370106, NOT_FOUND = 0xC037010E, EXISTS = 0xC037010F,
       STOPPED_ALREADY = 0xC0370110, BAD_HANDLE = 0x80070006 };
enum { SYSTEM = 1, PROCESS, SYSTEM_WATCH, PROCESS_WATCH, SNAPSHOT, OPENED, TOKEN };
enum { CREATED, RUNNING, PAUSED, STOPPED };
enum { ANSWER = 1, SILENT = 2, AT_ONCE = 4, HOLD = 8, WITH_HANDLE = 16 };  /* how a scripted call goes */
enum { MOST = 4096, BASE = 0x1000 };

struct note { uint32_t kind, status; char *data; int watch, forced; struct note *next; };
struct handle { int type, open, object, of; callback call; void *context; int busy; };  /* of: whose registration it is */
struct system { char id[128]; int state, guest, handles, exited; struct note *waiting; };
struct process { int system, handles, ended, code, ours[3], theirs[3]; struct note *waiting; };
struct script { char name[64], *result; uint32_t hresult; int flags, used; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct handle handles[MOST]; static struct system systems[MOST]; static struct process processes[MOST]; static struct script scripts[MOST];
static void *texts[MOST];
static int notes_held, note_waiting;
static int handle_count, system_count, process_count, script_count, guest, held, release_count, started, bad_closes, bad_frees, bad_uses;
static struct note *queue, **queue_end = &queue;
static char *calls; static size_t calls_size; static FILE *calls_file;

static char *narrow(const wide *text) {  /* UTF-16 to UTF-8 */
    size_t length = 0, at = 0;
    while (text && text[length]) length++;
    char *out = malloc(3 * length + 1);
    for (size_t i = 0; i < length; i++) {
        uint32_t c = text[i];
        if (c >= 0xD800 && c < 0xDC00 && i + 1 < length) c = 0x10000 + ((c - 0xD800) << 10) + (text[++i] - 0xDC00);
        if (c < 0x80) out[at++] = c;
        else if (c < 0x800) { out[at++] = 0xC0 | c >> 6; out[at++] = 0x80 | (c & 63); }
        else if (c < 0x10000) { out[at++] = 0xE0 | c >> 12; out[at++] = 0x80 | (c >> 6 & 63); out[at++] = 0x80 | (c & 63); }
        else { out[at++] = 0xF0 | c >> 18; out[at++] = 0x80 | (c >> 12 & 63); out[at++] = 0x80 | (c >> 6 & 63); out[at++] = 0x80 | (c & 63); }
    }
    out[at] = 0;
    return out;
}

static wide *widen(const char *text) {
    size_t at = 0;
    wide *out = malloc(2 * (strlen(text) + 1));
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        uint32_t c = *p++;
        int more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : c >= 0xC0 ? 1 : 0;
        if (more) c &= 0x3F >> more;
        while (more-- && *p) c = c << 6 | (*p++ & 63);
        if (c >= 0x10000) { out[at++] = 0xD800 + ((c - 0x10000) >> 10); c = 0xDC00 + ((c - 0x10000) & 0x3FF); }
        out[at++] = c;
    }
    out[at] = 0;
    return out;
}

static void give(wide **out, const char *text) {  /* a text that the caller must free */
    if (!out) return;
    *out = NULL;
    if (!text || !*text) return;
    for (int i = 0; i < MOST; i++) if (!texts[i]) { texts[i] = *out = widen(text); return; }
    abort();
}

void CoTaskMemFree(void *text) {
    pthread_mutex_lock(&lock);
    int found = 0;
    for (int i = 0; i < MOST && text; i++) if (texts[i] == text) { texts[i] = NULL; found = 1; break; }
    if (text && !found) bad_frees++;
    if (found) free(text);
    pthread_mutex_unlock(&lock);
}

static void record(const char *name, const char *first, const char *second) {
    fprintf(calls_file, "%s\x1f%s\x1f%s\x1e", name, first ? first : "", second ? second : "");
    fflush(calls_file);
    pthread_cond_broadcast(&changed);
}

static void post(int watch, uint32_t kind, uint32_t status, const char *data, int forced) {
    struct note *note = malloc(sizeof *note);
    *note = (struct note){kind, status, strdup(data ? data : ""), watch, forced, NULL};
    *queue_end = note; queue_end = &note->next;
    pthread_cond_broadcast(&changed);
}

static void *notifier(void *unused) {
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!queue) pthread_cond_wait(&changed, &lock);
        struct note *note = queue;
        queue = note->next;
        if (!queue) queue_end = &queue;
        struct handle *watch = &handles[note->watch];
        if (watch->open || note->forced) {
            watch->busy++;
            callback call = watch->call; void *context = watch->context;
            while (notes_held) {
                note_waiting = 1;
                pthread_cond_broadcast(&changed);
                pthread_cond_wait(&changed, &lock);
            }
            note_waiting = 0;
            pthread_mutex_unlock(&lock);
            wide *data = widen(note->data);
            call(note->kind, context, (HRESULT)note->status, *data ? data : NULL);
            free(data);
            pthread_mutex_lock(&lock);
            watch->busy--;
            pthread_cond_broadcast(&changed);
        }
        free(note->data); free(note);
        pthread_cond_broadcast(&changed);
    }
    return unused;
}

/* A notification for a system or process: to who watches it, or kept until somebody does. */
static void tell(int type, int object, uint32_t kind, uint32_t status, const char *data) {
    int told = 0;
    for (int i = 0; i < handle_count; i++)
        if (handles[i].type == type + 2 && handles[i].object == object && handles[i].open) { post(i, kind, status, data, 0); told = 1; }
    if (told) return;
    struct note **end = type == SYSTEM ? &systems[object].waiting : &processes[object].waiting;
    while (*end) end = &(*end)->next;
    *end = malloc(sizeof **end);
    **end = (struct note){kind, status, strdup(data ? data : ""), 0, 0, NULL};
}

static void *open_handle(int type, int object) {
    if (handle_count == MOST) abort();
    handles[handle_count] = (struct handle){.type = type, .open = 1, .object = object};
    return (void *)(intptr_t)(BASE + handle_count++);
}

static struct handle *find(void *value, int type) {
    intptr_t index = (intptr_t)value - BASE;
    if (index < 0 || index >= handle_count || handles[index].type != type || !handles[index].open) return NULL;
    return &handles[index];
}

static void end_system(int index, uint32_t status, const char *data) {
    if (systems[index].state == STOPPED) return;
    systems[index].state = STOPPED;
    tell(SYSTEM, index, 1, status, data);
}

/* Record a call and find how it is scripted; waits there while it is held. Returns the script or NULL; the lock is held. */
static struct script *enter(const char *name, const wide *first, const wide *second) {
    pthread_mutex_lock(&lock);
    if (!calls_file) calls_file = open_memstream(&calls, &calls_size);
    if (!started) { pthread_t thread; started = 1; pthread_create(&thread, NULL, notifier, NULL); pthread_detach(thread); }
    char *a = narrow(first), *b = narrow(second);
    record(name, a, b);
    free(a); free(b);
    for (int i = 0; i < script_count; i++) {
        struct script *script = &scripts[i];
        if (script->used || strcmp(script->name, name)) continue;
        script->used = 1;
        if (script->flags & HOLD) {
            int now = release_count;
            held++;
            pthread_cond_broadcast(&changed);
            while (release_count == now) pthread_cond_wait(&changed, &lock);
        }
        return script;
    }
    return NULL;
}

static HRESULT leave(uint32_t hresult) { pthread_mutex_unlock(&lock); return (HRESULT)hresult; }

#define ANSWERED(script) ((script) && ((script)->flags & ANSWER))

/* ---- systems ---- */

static HRESULT change(const char *name, void *handle, const wide *options, wide **result, int from, int to, uint32_t kind) {
    struct script *script = enter(name, options, NULL);
    struct handle *opened = find(handle, SYSTEM);
    give(result, script ? script->result : NULL);
    if (!opened) { bad_uses++; return leave(BAD_HANDLE); }
    if (ANSWERED(script)) return leave(script->hresult);
    struct system *system = &systems[opened->object];
    if (system->state != from) return leave(system->state == STOPPED ? STOPPED_ALREADY : INVALID_STATE);
    system->state = to;
    int at_once = script && script->flags & AT_ONCE;
    if (!at_once && !(script && script->flags & SILENT)) tell(SYSTEM, opened->object, kind, script ? script->hresult : 0, "");
    if (kind == 3 && system->guest == 1) end_system(opened->object, 0, "{\"Status\":0,\"ExitType\":\"GracefulExit\"}");
    if (kind == 3 && system->guest == 2)
        end_system(opened->object, UNEXPECTED_EXIT, "{\"Status\":-1070137082,\"ExitType\":\"UnexpectedExit\",\"Attribution\":[{\"InvalidTripleFault\":{}}]}");
    return leave(at_once ? 0 : PENDING);
}

HRESULT HcsCreateComputeSystem(const wide *id, const wide *document, void *identity, void **out, wide **result) {
    struct script *script = enter("HcsCreateComputeSystem", id, document);
    (void)identity;
    give(result, script ? script->result : NULL);
    *out = NULL;
    if (ANSWERED(script) && !(script->flags & WITH_HANDLE)) return leave(script->hresult);
    char *name = narrow(id);
    for (int i = 0; i < system_count; i++)
        if (!strcmp(systems[i].id, name) && systems[i].handles) { free(name); return leave(EXISTS); }
    struct system *system = &systems[system_count];
    memset(system, 0, sizeof *system);
    snprintf(system->id, sizeof system->id, "%s", name);
    free(name);
    system->guest = guest; system->handles = 1;
    *out = open_handle(SYSTEM, system_count);
    int at_once = script && script->flags & AT_ONCE;
    if (!at_once && !(script && script->flags & SILENT)) tell(SYSTEM, system_count, 2, script ? script->hresult : 0, "");
    system_count++;
    return leave(ANSWERED(script) ? script->hresult : at_once ? 0 : PENDING);
}

HRESULT HcsOpenComputeSystem(const wide *id, void **out, wide **result) {
    struct script *script = enter("HcsOpenComputeSystem", id, NULL);
    give(result, script ? script->result : NULL);
    *out = NULL;
    if (ANSWERED(script)) return leave(script->hresult);
    char *name = narrow(id);
    for (int i = 0; i < system_count; i++)
        if (!strcmp(systems[i].id, name) && systems[i].handles) {
            free(name);
            systems[i].handles++;
            *out = open_handle(SYSTEM, i);
            return leave(0);
        }
    free(name);
    return leave(NOT_FOUND);
}

static HRESULT close_handle(const char *name, void *value, int type) {
    struct script *script = enter(name, NULL, NULL);
    struct handle *opened = find(value, type);
    if (!opened) { bad_closes++; return leave(BAD_HANDLE); }
    for (int i = 0; i < handle_count; i++)
        if (handles[i].type == type + 2 && handles[i].open && handles[i].of == opened - handles) bad_closes++;  /* notifications end first */
    opened->open = 0;
    while (opened->busy) pthread_cond_wait(&changed, &lock);  /* the service waits for a notification that is being passed on */
    if (type == SYSTEM && --systems[opened->object].handles == 0) systems[opened->object].state = STOPPED;
    if (type == PROCESS) processes[opened->object].handles--;
    pthread_cond_broadcast(&changed);
    return leave(ANSWERED(script) ? script->hresult : 0);
}

HRESULT HcsCloseComputeSystem(void *handle) { return close_handle("HcsCloseComputeSystem", handle, SYSTEM); }
HRESULT HcsCloseProcess(void *handle) { return close_handle("HcsCloseProcess", handle, PROCESS); }
HRESULT HcsUnregisterComputeSystemCallback(void *handle) { return close_handle("HcsUnregisterComputeSystemCallback", handle, SYSTEM_WATCH); }
HRESULT HcsUnregisterProcessCallback(void *handle) { return close_handle("HcsUnregisterProcessCallback", handle, PROCESS_WATCH); }

HRESULT HcsStartComputeSystem(void *h, const wide *o, wide **r) { return change("HcsStartComputeSystem", h, o, r, CREATED, RUNNING, 3); }
HRESULT HcsPauseComputeSystem(void *h, const wide *o, wide **r) { return change("HcsPauseComputeSystem", h, o, r, RUNNING, PAUSED, 4); }
HRESULT HcsResumeComputeSystem(void *h, const wide *o, wide **r) { return change("HcsResumeComputeSystem", h, o, r, PAUSED, RUNNING, 5); }
HRESULT HcsSaveComputeSystem(void *h, const wide *o, wide **r) { return change("HcsSaveComputeSystem", h, o, r, PAUSED, PAUSED, 8); }

static HRESULT end(const char *name, void *handle, const wide *options, wide **result, const char *how) {
    struct script *script = enter(name, options, NULL);
    struct handle *opened = find(handle, SYSTEM);
    give(result, script ? script->result : NULL);
    if (!opened) { bad_uses++; return leave(BAD_HANDLE); }
    if (ANSWERED(script)) return leave(script->hresult);
    if (systems[opened->object].state == STOPPED) return leave(STOPPED_ALREADY);
    end_system(opened->object, 0, how);
    return leave(PENDING);
}

HRESULT HcsShutdownComputeSystem(void *h, const wide *o, wide **r) { return end("HcsShutdownComputeSystem", h, o, r, "{\"ExitType\":\"GracefulExit\"}"); }
HRESULT HcsTerminateComputeSystem(void *h, const wide *o, wide **r) { return end("HcsTerminateComputeSystem", h, o, r, "{\"ExitType\":\"ForcedExit\"}"); }

HRESULT HcsModifyComputeSystem(void *handle, const wide *request, wide **result) {
    struct script *script = enter("HcsModifyComputeSystem", request, NULL);
    give(result, script ? script->result : NULL);
    if (!find(handle, SYSTEM)) { bad_uses++; return leave(BAD_HANDLE); }
    return leave(ANSWERED(script) ? script->hresult : 0);
}

HRESULT HcsGetComputeSystemProperties(void *handle, const wide *query, wide **properties, wide **result) {
    static const char *states[] = {"Created", "Running", "Paused", "Stopped"};
    struct script *script = enter("HcsGetComputeSystemProperties", query, NULL);
    struct handle *opened = find(handle, SYSTEM);
    *properties = NULL;
    give(result, script && script->hresult ? script->result : NULL);
    if (!opened) { bad_uses++; return leave(BAD_HANDLE); }
    if (ANSWERED(script)) {
        if (!script->hresult) give(properties, script->result);
        return leave(script->hresult);
    }
    struct system *system = &systems[opened->object];
    if (system->state == STOPPED) return leave(NOT_FOUND);
    char text[512];
    snprintf(text, sizeof text, "{\"Id\":\"%s\",\"SystemType\":\"VirtualMachine\",\"RuntimeOsType\":\"linux\",\"RuntimeId\":\"00000000-0000-4000-8000-%012X\",\"State\":\"%s\"}",
             system->id, opened->object + 0xA0, states[system->state]);
    give(properties, text);
    return leave(0);
}

static HRESULT watch(const char *name, void *handle, callback call, void *context, void **out, int type) {
    struct script *script = enter(name, NULL, NULL);
    struct handle *opened = find(handle, type);
    *out = NULL;
    if (!opened) { bad_uses++; return leave(BAD_HANDLE); }
    if (ANSWERED(script)) return leave(script->hresult);
    int object = opened->object;
    *out = open_handle(type + 2, object);
    struct handle *made = find(*out, type + 2);
    made->call = call; made->context = context; made->of = opened - handles;
    struct note **waiting = type == SYSTEM ? &systems[object].waiting : &processes[object].waiting;
    while (*waiting) {
        struct note *note = *waiting;
        *waiting = note->next;
        post(made - handles, note->kind, note->status, note->data, 0);
        free(note->data); free(note);
    }
    return leave(0);
}

HRESULT HcsRegisterComputeSystemCallback(void *h, callback c, void *x, void **o) { return watch("HcsRegisterComputeSystemCallback", h, c, x, o, SYSTEM); }
HRESULT HcsRegisterProcessCallback(void *h, callback c, void *x, void **o) { return watch("HcsRegisterProcessCallback", h, c, x, o, PROCESS); }

/* ---- processes: the test has the other ends of their streams ---- */

static void wish(const char *text, const char *member, int which, int reads, struct process *process, void **out) {
    int ends[2];
    process->ours[which] = -1;
    *out = NULL;
    if (!strstr(text, member) || pipe(ends)) return;
    process->ours[which] = ends[reads ? 0 : 1];
    *out = (void *)(intptr_t)ends[reads ? 1 : 0];
}

HRESULT HcsCreateProcess(void *handle, const wide *parameters, struct information *information, void **out, wide **result) {
    struct script *script = enter("HcsCreateProcess", parameters, NULL);
    struct handle *opened = find(handle, SYSTEM);
    give(result, script ? script->result : NULL);
    memset(information, 0, sizeof *information);
    *out = NULL;
    if (!opened) { bad_uses++; return leave(BAD_HANDLE); }
    if (ANSWERED(script)) return leave(script->hresult);
    struct process *process = &processes[process_count];
    memset(process, 0, sizeof *process);
    process->system = opened->object; process->handles = 1;
    char *text = narrow(parameters);
    wish(text, "\"CreateStdInPipe\":true", 0, 1, process, &information->std_input);
    wish(text, "\"CreateStdOutPipe\":true", 1, 0, process, &information->std_output);
    wish(text, "\"CreateStdErrPipe\":true", 2, 0, process, &information->std_error);
    free(text);
    information->process_id = 100 + process_count;
    *out = open_handle(PROCESS, process_count++);
    return leave(0);
}

HRESULT HcsOpenProcess(void *handle, uint32_t id, void **out, wide **result) {
    struct script *script = enter("HcsOpenProcess", NULL, NULL);
    give(result, script ? script->result : NULL);
    *out = NULL;
    if (!find(handle, SYSTEM)) { bad_uses++; return leave(BAD_HANDLE); }
    if (ANSWERED(script)) return leave(script->hresult);
    if (id < 100 || id >= 100u + process_count) return leave(NOT_FOUND);
    processes[id - 100].handles++;
    *out = open_handle(PROCESS, id - 100);
    return leave(0);
}

static HRESULT end_process(const char *name, void *handle, const wide *options, wide **result, int code) {
    struct script *script = enter(name, options, NULL);
    struct handle *opened = find(handle, PROCESS);
    give(result, script ? script->result : NULL);
    if (!opened) { bad_uses++; return leave(BAD_HANDLE); }
    if (ANSWERED(script)) return leave(script->hresult);
    struct process *process = &processes[opened->object];
    if (process->ended) return leave(NOT_FOUND);
    process->ended = 1; process->code = code;
    if (!(script && script->flags & SILENT)) tell(PROCESS, opened->object, 0x00010000, 0, "");
    return leave(0);
}

HRESULT HcsTerminateProcess(void *h, wide **r) { return end_process("HcsTerminateProcess", h, NULL, r, 137); }
HRESULT HcsSignalProcess(void *h, const wide *o, wide **r) { return end_process("HcsSignalProcess", h, o, r, 143); }

HRESULT HcsGetProcessInfo(void *handle, struct information *information, wide **result) {
    struct script *script = enter("HcsGetProcessInfo", NULL, NULL);
    struct handle *opened = find(handle, PROCESS);
    give(result, script ? script->result : NULL);
    memset(information, 0, sizeof *information);
    if (!opened) { bad_uses++; return leave(BAD_HANDLE); }
    if (ANSWERED(script)) return leave(script->hresult);
    information->process_id = 100 + opened->object;
    wish("x", "x", 1, 0, &processes[opened->object], &information->std_output);
    return leave(0);
}

HRESULT HcsGetProcessProperties(void *handle, wide **properties, wide **result) {
    struct script *script = enter("HcsGetProcessProperties", NULL, NULL);
    struct handle *opened = find(handle, PROCESS);
    *properties = NULL;
    give(result, NULL);
    if (!opened) { bad_uses++; return leave(BAD_HANDLE); }
    if (ANSWERED(script)) {
        if (!script->hresult) give(properties, script->result);
        return leave(script->hresult);
    }
    char text[128];
    struct process *process = &processes[opened->object];
    snprintf(text, sizeof text, "{\"ProcessId\":%d,\"Exited\":%s,\"ExitCode\":%d}", 100 + opened->object, process->ended ? "true" : "false", process->code);
    give(properties, text);
    return leave(0);
}

HRESULT HcsModifyProcess(void *handle, const wide *settings, wide **result) {
    struct script *script = enter("HcsModifyProcess", settings, NULL);
    give(result, script ? script->result : NULL);
    if (!find(handle, PROCESS)) { bad_uses++; return leave(BAD_HANDLE); }
    return leave(ANSWERED(script) ? script->hresult : 0);
}

/* ---- the service, access, layers ---- */

static HRESULT ask(const char *name, const wide *query, wide **told, wide **result, const char *otherwise) {
    struct script *script = enter(name, query, NULL);
    if (told) *told = NULL;
    int failed = ANSWERED(script) && script->hresult;
    give(result, failed ? script->result : NULL);
    if (!failed && told) give(told, ANSWERED(script) ? script->result : otherwise);
    return leave(ANSWERED(script) ? script->hresult : 0);
}

HRESULT HcsEnumerateComputeSystems(const wide *q, wide **t, wide **r) { return ask("HcsEnumerateComputeSystems", q, t, r, "[]"); }
HRESULT HcsGetServiceProperties(const wide *q, wide **t, wide **r) {
    return ask("HcsGetServiceProperties", q, t, r, "{\"Properties\":[{\"LogicalProcessorCount\":8}]}");
}
HRESULT HcsModifyServiceSettings(const wide *q, wide **r) { return ask("HcsModifyServiceSettings", q, NULL, r, NULL); }

static HRESULT plain(const char *name, const wide *first, const wide *second) {
    struct script *script = enter(name, first, second);
    return leave(ANSWERED(script) ? script->hresult : 0);
}

HRESULT GrantVmAccess(const wide *id, const wide *path) { return plain("GrantVmAccess", id, path); }
HRESULT HcsGrantVmGroupAccess(const wide *path) { return plain("HcsGrantVmGroupAccess", path, NULL); }
HRESULT HcsRevokeVmAccess(const wide *id, const wide *path) { return plain("HcsRevokeVmAccess", id, path); }
HRESULT HNSCall(const wide *method, const wide *path, const wide *object, wide **response) {
    (void)object;
    struct script *script = enter("HNSCall", method, path);
    give(response, ANSWERED(script) ? script->result : "{\"Success\":false,\"Error\":\"Element not found.\"}");
    return leave(ANSWERED(script) ? script->hresult : 0);
}
HRESULT HcsImportLayer(const wide *a, const wide *b, const wide *c) { (void)c; return plain("HcsImportLayer", a, b); }
HRESULT HcsExportLayer(const wide *a, const wide *b, const wide *c, const wide *d) { (void)c; (void)d; return plain("HcsExportLayer", a, b); }
HRESULT HcsDestroyLayer(const wide *a) { return plain("HcsDestroyLayer", a, NULL); }
HRESULT HcsInitializeWritableLayer(const wide *a, const wide *b, const wide *c) { (void)c; return plain("HcsInitializeWritableLayer", a, b); }
HRESULT HcsAttachLayerStorageFilter(const wide *a, const wide *b) { return plain("HcsAttachLayerStorageFilter", a, b); }
HRESULT HcsDetachLayerStorageFilter(const wide *a) { return plain("HcsDetachLayerStorageFilter", a, NULL); }

/* ---- processes of the host: kernel32.dll and advapi32.dll, whose functions tell their errors by errno ---- */

enum { NO_MORE_FILES = 18, INVALID_PARAMETER = 87, TOO_SMALL = 122 };
struct entry { uint32_t size, usage, process_id; uintptr_t heap; uint32_t module, threads, parent; int32_t priority; uint32_t flags; wide file[260]; };
struct counters { uint32_t size, page_faults; size_t peak, working_set, quotas[4], page_file, peak_page_file; };
static struct { uint32_t pid; char file[64], domain[64], name[64]; uint64_t working_set; } hosts[64];
static int host_count;

static intptr_t tell_error(int code, intptr_t failure) { pthread_mutex_unlock(&lock); errno = code; return failure; }
static intptr_t tell_success(intptr_t value) { pthread_mutex_unlock(&lock); return value; }
static void copy_wide(wide *out, const char *text) {
    wide *copy = widen(text);
    size_t at = 0;
    do out[at] = copy[at]; while (copy[at++]);
    free(copy);
}
/* Enter a call that must find a handle of this type; where the script or the handle refuses, it returns. */
#define ENTER_HOST(name, value, kind) \
    struct script *script = enter(name, NULL, NULL); \
    struct handle *opened = find(value, kind); \
    if (!opened) { bad_uses++; return tell_error(6, 0); } \
    if (ANSWERED(script)) return tell_error(script->hresult, 0)

void *CreateToolhelp32Snapshot(uint32_t flags, uint32_t pid) {
    struct script *script = enter("CreateToolhelp32Snapshot", NULL, NULL);
    if (ANSWERED(script)) return (void *)tell_error(script->hresult, -1);
    if (flags != 2 || pid) return (void *)tell_error(INVALID_PARAMETER, -1);
    return (void *)tell_success((intptr_t)open_handle(SNAPSHOT, -1));
}

static intptr_t next_process(const char *name, void *snapshot, struct entry *out, int from) {
    ENTER_HOST(name, snapshot, SNAPSHOT);
    if (out->size != sizeof *out) return tell_error(INVALID_PARAMETER, 0);
    opened->object = from ? 0 : opened->object + 1;
    if (opened->object >= host_count) return tell_error(NO_MORE_FILES, 0);
    out->process_id = hosts[opened->object].pid;
    copy_wide(out->file, hosts[opened->object].file);
    return tell_success(1);
}

int Process32FirstW(void *snapshot, struct entry *out) { return next_process("Process32FirstW", snapshot, out, 1); }
int Process32NextW(void *snapshot, struct entry *out) { return next_process("Process32NextW", snapshot, out, 0); }

void *OpenProcess(uint32_t access, int inherit, uint32_t pid) {
    struct script *script = enter("OpenProcess", NULL, NULL);
    if (ANSWERED(script)) return (void *)tell_error(script->hresult, 0);
    for (int i = 0; i < host_count && access == 0x1000 && !inherit; i++)
        if (hosts[i].pid == pid) return (void *)tell_success((intptr_t)open_handle(OPENED, i));
    return (void *)tell_error(INVALID_PARAMETER, 0);
}

int OpenProcessToken(void *process, uint32_t access, void **out) {
    ENTER_HOST("OpenProcessToken", process, OPENED);
    if (access != 8) return tell_error(5, 0);
    *out = open_handle(TOKEN, opened->object);
    return tell_success(1);
}

int GetTokenInformation(void *token, int what, void *out, uint32_t size, uint32_t *needed) {
    ENTER_HOST("GetTokenInformation", token, TOKEN);
    struct { int *sid; uint32_t attributes; int id; } *user = out;
    *needed = sizeof *user;
    if (what != 1) return tell_error(INVALID_PARAMETER, 0);
    if (size < sizeof *user) return tell_error(TOO_SMALL, 0);
    user->id = opened->object; user->sid = &user->id;
    return tell_success(1);
}

int LookupAccountSidW(const wide *system, const int *sid, wide *name, uint32_t *name_size, wide *domain, uint32_t *domain_size, int *use) {
    struct script *script = enter("LookupAccountSidW", system, NULL);
    if (ANSWERED(script)) return tell_error(script->hresult, 0);
    if (*name_size < 64 || *domain_size < 64) return tell_error(TOO_SMALL, 0);
    copy_wide(name, hosts[*sid].name);
    copy_wide(domain, hosts[*sid].domain);
    *use = 1;
    return tell_success(1);
}

int K32GetProcessMemoryInfo(void *process, struct counters *out, uint32_t size) {
    ENTER_HOST("K32GetProcessMemoryInfo", process, OPENED);
    if (size != sizeof *out || out->size != size) return tell_error(TOO_SMALL, 0);
    out->working_set = hosts[opened->object].working_set;
    return tell_success(1);
}

int CloseHandle(void *value) {
    enter("CloseHandle", NULL, NULL);
    for (int type = SNAPSHOT; type <= TOKEN; type++) {
        struct handle *opened = find(value, type);
        if (!opened) continue;
        opened->open = 0;
        pthread_cond_broadcast(&changed);
        return tell_success(1);
    }
    bad_closes++;
    return tell_error(6, 0);
}

/* ---- for tests ---- */

void standin_host_process(uint32_t pid, const char *file, const char *domain, const char *name, uint64_t working_set) {
    pthread_mutex_lock(&lock);
    hosts[host_count].pid = pid; hosts[host_count].working_set = working_set;
    snprintf(hosts[host_count].file, 64, "%s", file);
    snprintf(hosts[host_count].domain, 64, "%s", domain);
    snprintf(hosts[host_count].name, 64, "%s", name);
    host_count++;
    pthread_mutex_unlock(&lock);
}

void standin_script(const char *name, uint32_t hresult, const char *result, int flags) {
    pthread_mutex_lock(&lock);
    struct script *script = &scripts[script_count++ % MOST];
    *script = (struct script){.hresult = hresult, .flags = flags, .result = strdup(result)};
    snprintf(script->name, sizeof script->name, "%s", name);
    pthread_mutex_unlock(&lock);
}

void standin_guest(int what) { pthread_mutex_lock(&lock); guest = what; pthread_mutex_unlock(&lock); }

/* Wait until so many calls are held. */
void standin_wait_held(int calls) {
    pthread_mutex_lock(&lock);
    while (held < calls) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

/* From now on the service's thread stops with a notification in its hand, right before it calls; or it goes on. */
void standin_hold_notes(int hold) {
    pthread_mutex_lock(&lock);
    notes_held = hold;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

void standin_wait_note(void) {
    pthread_mutex_lock(&lock);
    while (!note_waiting) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

void standin_release(void) {
    pthread_mutex_lock(&lock);
    release_count++;
    held = 0; /* now, not when they wake: whoever waits for the next one must not find these */
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* Notify who watches the newest system, or the newest process; `forced` also whoever has stopped watching it. */
void standin_notify(int of_process, uint32_t kind, uint32_t status, const char *data, int forced) {
    pthread_mutex_lock(&lock);
    int type = of_process ? PROCESS : SYSTEM, object = (of_process ? process_count : system_count) - 1;
    if (kind == 1) systems[object].state = STOPPED;
    for (int i = 0; i < handle_count; i++)
        if (handles[i].type == type + 2 && handles[i].object == object && (handles[i].open || forced)) post(i, kind, status, data, forced);
    pthread_mutex_unlock(&lock);
}

/* Wait until every notification has been passed on. */
void standin_settle(void) {
    pthread_mutex_lock(&lock);
    for (;;) {
        int busy = queue != NULL;
        for (int i = 0; i < handle_count; i++) busy |= handles[i].busy;
        if (!busy) break;
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
}

/* Wait until a function has been called. */
void standin_wait_call(const char *name) {
    char begins[80];
    snprintf(begins, sizeof begins, "%s\x1f", name);
    pthread_mutex_lock(&lock);
    while (!calls_file || !strstr(calls, begins)) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

/* Wait until no handle is open. */
void standin_wait_closed(void) {
    pthread_mutex_lock(&lock);
    for (;;) {
        int open = 0;
        for (int i = 0; i < handle_count; i++) open += handles[i].open;
        if (!open) break;
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
}

int standin_process_end(int id, int which) { return processes[id - 100].ours[which]; }

void standin_process_exit(int id, int code) {
    pthread_mutex_lock(&lock);
    processes[id - 100].ended = 1; processes[id - 100].code = code;
    tell(PROCESS, id - 100, 0x00010000, 0, "");
    pthread_mutex_unlock(&lock);
}

/* Open handles and registrations, wrong closes, texts not freed, wrong frees, uses of handles that are not open. */
void standin_counts(int out[5]) {
    pthread_mutex_lock(&lock);
    memset(out, 0, 5 * sizeof *out);
    for (int i = 0; i < handle_count; i++) out[0] += handles[i].open;
    out[1] = bad_closes;
    for (int i = 0; i < MOST; i++) out[2] += texts[i] != NULL;
    out[3] = bad_frees;
    out[4] = bad_uses;
    pthread_mutex_unlock(&lock);
}

const char *standin_calls(void) { return calls_file ? calls : ""; }
