/* A libnvidia-ml.so.1 without hardware, for whole worker processes. The file that FAKE_NVML names says what it is:

     gpus N          GPUs, all alike
     delay MS        each device takes so long to say how busy it is
     lost I          this one is off the bus (nobody: -1)
     pid P           a process that computes on GPU 0
     open N          written by the library itself, into FAKE_NVML.open: users of NVML now

   It has the functions that the worker needs at the least; pynvml answers for all others that there are none. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, LOST = 15 };

static int users;

static long setting(const char *name, long otherwise) {
    char word[32];
    long value, found = otherwise;
    FILE *file = fopen(getenv("FAKE_NVML"), "r");
    while (file && fscanf(file, "%31s %ld", word, &value) == 2)
        if (!strcmp(word, name))
            found = value;
    if (file)
        fclose(file);
    return found;
}

static int count_users(int change) {
    char path[4096];
    users += change;
    snprintf(path, sizeof path, "%s.open", getenv("FAKE_NVML"));
    FILE *file = fopen(path, "w");
    fprintf(file, "%d", users);
    fclose(file);
    return SUCCESS;
}

static long index_of(void *device) { return (long)device - 1; }

static int check(void *device) {
    if (!users)
        return UNINITIALIZED;
    return index_of(device) == setting("lost", -1) ? LOST : SUCCESS;
}

const char *nvmlErrorString(int code) { return code == LOST ? "GPU is lost" : "some error"; }
int nvmlInitWithFlags(unsigned flags) { return flags ? INVALID : count_users(1); }
int nvmlShutdown(void) { return users ? count_users(-1) : UNINITIALIZED; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = setting("gpus", 0);
    return users ? SUCCESS : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(long)(index + 1);
    return check(*device);
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    snprintf(text, length, "GPU-0000000%ld-0000-0000-0000-000000000000", index_of(device));
    return check(device);
}

int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    snprintf(text, length, "Fake H100");
    return check(device);
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned *percent) {
    usleep(setting("delay", 0) * 1000);
    percent[0] = 37;
    percent[1] = 5;
    return check(device);
}

struct process { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; };

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *found) {
    long pid = index_of(device) ? 0 : setting("pid", 0);
    unsigned room = *count;
    *count = pid != 0;
    if (!pid)
        return check(device);
    if (!room)
        return INSUFFICIENT_SIZE;
    found[0] = (struct process){pid, 5ULL << 30, -1, -1};
    return check(device);
}
