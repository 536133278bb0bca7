/* A stand-in for libnvidia-ml.so.1 that plays the states of a file, which FALLOW_NVML_STATES names and which is read anew at each call.
 *
 * Lines of the file:
 *   card uuid=GPU-0 name=NVIDIA_A2 vram=16106127360 [used=0 temp=40 limit=90 power=30000 gpu=5 ecc=0 pending=0 remap_failed=0 state=ok]
 *   slice of=GPU-0 uuid=MIG-0 name=NVIDIA_A100_MIG_1g.5gb vram=5000000000
 *   xid uuid=GPU-0 code=79
 *   dead                              every call fails, as with a driver that is sick
 * An underscore stands for a space. `state` is ok, lost (its handle says so) or gone (it is not listed). What a card does not say it does
 * not support. Each Xid line is told once, to the event sets that are there.
 */
#include <nvml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CARDS 32
#define TEXT 96

struct card {
    char uuid[TEXT], name[TEXT], of[TEXT], state[TEXT];
    long long vram, used, temp, limit, power, gpu, ecc, pending, remap_failed;
};
struct handle { char uuid[TEXT]; };

static struct card cards[CARDS];
static int card_count, is_dead, xids_told;
static struct handle handles[CARDS];
static int handle_count;

static void value_of(const char *line, const char *key, char *value) {
    char wanted[TEXT];
    snprintf(wanted, sizeof wanted, " %s=", key);
    const char *found = strstr(line, wanted);
    value[0] = 0;
    if (found) sscanf(found + strlen(wanted), "%95s", value);
    for (char *letter = value; *letter; letter++)
        if (*letter == '_') *letter = ' ';
}

static long long number_of(const char *line, const char *key) {
    char value[TEXT];
    value_of(line, key, value);
    return value[0] ? atoll(value) : -1;
}

static nvmlReturn_t read_states(void) {
    static char last[1024];
    const char *path = getenv("FALLOW_NVML_STATES");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return NVML_ERROR_DRIVER_NOT_LOADED;
    if (strcmp(last, path)) xids_told = 0;
    snprintf(last, sizeof last, "%s", path);
    char line[1024];
    card_count = is_dead = 0;
    while (fgets(line, sizeof line, file)) {
        int is_slice = !strncmp(line, "slice ", 6);
        if (!strncmp(line, "dead", 4)) is_dead = 1;
        if ((!is_slice && strncmp(line, "card ", 5)) || card_count == CARDS) continue;
        struct card *card = &cards[card_count++];
        value_of(line, "uuid", card->uuid);
        value_of(line, "name", card->name);
        value_of(line, "of", card->of);
        value_of(line, "state", card->state);
        card->vram = number_of(line, "vram"), card->used = number_of(line, "used");
        card->temp = number_of(line, "temp"), card->limit = number_of(line, "limit");
        card->power = number_of(line, "power"), card->gpu = number_of(line, "gpu");
        card->ecc = number_of(line, "ecc"), card->pending = number_of(line, "pending");
        card->remap_failed = number_of(line, "remap_failed");
    }
    fclose(file);
    return is_dead ? NVML_ERROR_UNKNOWN : NVML_SUCCESS;
}

static int is_listed(const struct card *card) { return !card->of[0] && strcmp(card->state, "gone"); }

static nvmlDevice_t handle_of(const char *uuid) {
    for (int at = 0; at < handle_count; at++)
        if (!strcmp(handles[at].uuid, uuid)) return (nvmlDevice_t)&handles[at];
    snprintf(handles[handle_count].uuid, TEXT, "%s", uuid);
    return (nvmlDevice_t)&handles[handle_count++];
}

static nvmlReturn_t find(nvmlDevice_t device, struct card **card) {
    nvmlReturn_t result = read_states();
    if (result != NVML_SUCCESS) return result;
    for (int at = 0; at < card_count; at++)
        if (!strcmp(cards[at].uuid, ((struct handle *)device)->uuid)) {
            *card = &cards[at];
            if (!strcmp(cards[at].state, "lost") || !strcmp(cards[at].state, "gone")) return NVML_ERROR_GPU_IS_LOST;
            return NVML_SUCCESS;
        }
    return NVML_ERROR_GPU_IS_LOST;
}

#define TELL(field, target)                                                                      \
    struct card *card;                                                                           \
    nvmlReturn_t result = find(device, &card);                                                   \
    if (result != NVML_SUCCESS) return result;                                                   \
    if (card->field < 0) return NVML_ERROR_NOT_SUPPORTED;                                        \
    *(target) = card->field;                                                                     \
    return NVML_SUCCESS

nvmlReturn_t DECLDIR nvmlInitWithFlags(unsigned int flags) { (void)flags; return read_states(); }
nvmlReturn_t DECLDIR nvmlInit_v2(void) { return read_states(); }
nvmlReturn_t DECLDIR nvmlShutdown(void) { return NVML_SUCCESS; }

nvmlReturn_t DECLDIR nvmlDeviceGetCount_v2(unsigned int *deviceCount) {
    nvmlReturn_t result = read_states();
    *deviceCount = 0;
    for (int at = 0; at < card_count; at++) *deviceCount += is_listed(&cards[at]);
    return result;
}

nvmlReturn_t DECLDIR nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    nvmlReturn_t result = read_states();
    if (result != NVML_SUCCESS) return result;
    for (int at = 0; at < card_count; at++)
        if (is_listed(&cards[at]) && index-- == 0) {
            *device = handle_of(cards[at].uuid);
            return NVML_SUCCESS;
        }
    return NVML_ERROR_INVALID_ARGUMENT;
}

/* A card that is lost still tells who it was, as far as the driver remembers. */
static nvmlReturn_t text_of(nvmlDevice_t device, char *text, unsigned int length, int wants_name) {
    struct card *card = NULL;
    nvmlReturn_t result = find(device, &card);
    if (!card) return result;
    snprintf(text, length, "%s", wants_name ? card->name : card->uuid);
    return NVML_SUCCESS;
}
nvmlReturn_t DECLDIR nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length) { return text_of(device, uuid, length, 0); }
nvmlReturn_t DECLDIR nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length) { return text_of(device, name, length, 1); }

nvmlReturn_t DECLDIR nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    struct card *card;
    nvmlReturn_t result = find(device, &card);
    if (result != NVML_SUCCESS) return result;
    memory->total = card->vram;
    memory->used = card->used < 0 ? 0 : card->used;
    memory->free = memory->total - memory->used;
    return NVML_SUCCESS;
}

nvmlReturn_t DECLDIR nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensorType, unsigned int *temp) {
    (void)sensorType;
    TELL(temp, temp);
}
nvmlReturn_t DECLDIR nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, nvmlTemperatureThresholds_t thresholdType, unsigned int *temp) {
    if (thresholdType != NVML_TEMPERATURE_THRESHOLD_SLOWDOWN) return NVML_ERROR_INVALID_ARGUMENT;
    TELL(limit, temp);
}
nvmlReturn_t DECLDIR nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *power) { TELL(power, power); }
nvmlReturn_t DECLDIR nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t errorType, nvmlEccCounterType_t counterType, unsigned long long *eccCounts) {
    if (errorType != NVML_MEMORY_ERROR_TYPE_UNCORRECTED || counterType != NVML_VOLATILE_ECC) return NVML_ERROR_INVALID_ARGUMENT;
    TELL(ecc, eccCounts);
}
nvmlReturn_t DECLDIR nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization) {
    utilization->memory = 0;
    TELL(gpu, &utilization->gpu);
}
nvmlReturn_t DECLDIR nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrRows, unsigned int *uncRows, unsigned int *isPending, unsigned int *failureOccurred) {
    struct card *card;
    nvmlReturn_t result = find(device, &card);
    if (result != NVML_SUCCESS) return result;
    if (card->pending < 0 && card->remap_failed < 0) return NVML_ERROR_NOT_SUPPORTED;
    *corrRows = *uncRows = 0;
    *isPending = card->pending > 0;
    *failureOccurred = card->remap_failed > 0;
    return NVML_SUCCESS;
}
nvmlReturn_t DECLDIR nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    struct card *card;
    nvmlReturn_t result = find(device, &card);
    if (result != NVML_SUCCESS) return result;
    memset(pci, 0, sizeof *pci);
    snprintf(pci->busId, sizeof pci->busId, "00000000:%02X:00.0", (unsigned)(card - cards + 1));
    return NVML_SUCCESS;
}

static struct card *slice_at(const char *of, unsigned int index) {
    for (int at = 0; at < card_count; at++)
        if (!strcmp(cards[at].of, of) && index-- == 0) return &cards[at];
    return NULL;
}
nvmlReturn_t DECLDIR nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *currentMode, unsigned int *pendingMode) {
    struct card *card;
    nvmlReturn_t result = find(device, &card);
    if (result != NVML_SUCCESS) return result;
    *currentMode = *pendingMode = slice_at(card->uuid, 0) ? NVML_DEVICE_MIG_ENABLE : NVML_DEVICE_MIG_DISABLE;
    return NVML_SUCCESS;
}
nvmlReturn_t DECLDIR nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count) {
    (void)device;
    *count = 7;
    return NVML_SUCCESS;
}
nvmlReturn_t DECLDIR nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *migDevice) {
    struct card *card;
    nvmlReturn_t result = find(device, &card);
    if (result != NVML_SUCCESS) return result;
    struct card *slice = slice_at(card->uuid, index);
    if (!slice) return NVML_ERROR_NOT_FOUND;
    *migDevice = handle_of(slice->uuid);
    return NVML_SUCCESS;
}

nvmlReturn_t DECLDIR nvmlEventSetCreate(nvmlEventSet_t *set) {
    static int events;
    *set = (nvmlEventSet_t)&events;
    return NVML_SUCCESS;
}
nvmlReturn_t DECLDIR nvmlEventSetFree(nvmlEventSet_t set) { (void)set; return NVML_SUCCESS; }
nvmlReturn_t DECLDIR nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long eventTypes, nvmlEventSet_t set) {
    struct card *card;
    (void)set;
    if (eventTypes != nvmlEventTypeXidCriticalError) return NVML_ERROR_INVALID_ARGUMENT;
    return find(device, &card);
}

static int next_xid(nvmlEventData_t *data) {
    FILE *file = fopen(getenv("FALLOW_NVML_STATES"), "r");
    char line[1024], uuid[TEXT];
    int seen = 0, found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        if (strncmp(line, "xid ", 4) || seen++ < xids_told) continue;
        value_of(line, "uuid", uuid);
        memset(data, 0, sizeof *data);
        data->device = handle_of(uuid);
        data->eventType = nvmlEventTypeXidCriticalError;
        data->eventData = number_of(line, "code");
        xids_told++;
        found = 1;
    }
    if (file) fclose(file);
    return found;
}
nvmlReturn_t DECLDIR nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeoutms) {
    (void)set;
    for (unsigned int waited = 0;; waited += 10) {
        nvmlReturn_t result = read_states();
        if (result != NVML_SUCCESS) return result;
        if (next_xid(data)) return NVML_SUCCESS;
        if (waited >= timeoutms) return NVML_ERROR_TIMEOUT;
        usleep(10000);
    }
}
