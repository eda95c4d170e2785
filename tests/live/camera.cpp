// A V4L2 camera without a kernel driver: answers what FFmpeg asks of /dev/video7, in a process that loads it first
// (LD_PRELOAD). Buffers are a memory file, so that mapping them needs no help.
//
// CAMERA_FORMAT  YUYV or MJPG
// CAMERA_SIZE    WIDTHxHEIGHT
// CAMERA_FRAMES  file of one picture in that format
// CAMERA_RATE    pictures a second
// CAMERA_LEAVES  after so many pictures the camera is unplugged, until the device is opened again; 0: never

#include <dlfcn.h>
#include <errno.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <fstream>
#include <iterator>
#include <mutex>
#include <string>
#include <vector>

namespace {

constexpr const char* kPath = "/dev/video7";
constexpr unsigned kBuffers = 4;

struct Camera {
    int fd = -1;
    unsigned width = 0, height = 0, rate = 0, format = 0, size = 0;
    long leaves = 0, shown = 0;
    std::string picture;
    unsigned char* memory = nullptr;
    std::deque<unsigned> queued;
    struct timespec next = {};
};

Camera camera;
std::mutex turn;

const char* setting(const char* name) {
    const char* value = getenv(name);
    return value ? value : "";
}

int plugged_in() {
    camera = Camera{};
    const std::string format = setting("CAMERA_FORMAT");
    camera.format = format == "MJPG" ? V4L2_PIX_FMT_MJPEG : V4L2_PIX_FMT_YUYV;
    if (sscanf(setting("CAMERA_SIZE"), "%ux%u", &camera.width, &camera.height) != 2) return -1;
    camera.rate = static_cast<unsigned>(atoi(setting("CAMERA_RATE")));
    camera.leaves = atol(setting("CAMERA_LEAVES"));
    std::ifstream file(setting("CAMERA_FRAMES"), std::ios::binary);
    camera.picture.assign(std::istreambuf_iterator<char>(file), {});
    camera.size = camera.width * camera.height * 2;
    if (camera.picture.empty() || camera.picture.size() > camera.size || !camera.rate) return -1;
    camera.fd = memfd_create("camera", 0);
    const size_t all = static_cast<size_t>(camera.size) * kBuffers;
    if (camera.fd < 0 || ftruncate(camera.fd, static_cast<off_t>(all))) return -1;
    void* memory = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_SHARED, camera.fd, 0);
    camera.memory = static_cast<unsigned char*>(memory);
    return camera.fd;
}

int refuse(int why) {
    errno = why;
    return -1;
}

void describe(v4l2_format* format) {
    format->fmt.pix.width = camera.width;
    format->fmt.pix.height = camera.height;
    format->fmt.pix.pixelformat = camera.format;
    format->fmt.pix.field = V4L2_FIELD_NONE;
    format->fmt.pix.bytesperline = camera.format == V4L2_PIX_FMT_YUYV ? camera.width * 2 : 0;
    format->fmt.pix.sizeimage = camera.size;
}

int take(v4l2_buffer* buffer) {
    if (camera.queued.empty()) return refuse(EINVAL);
    if (camera.leaves && camera.shown >= camera.leaves) return refuse(ENODEV);
    if (!camera.shown++) clock_gettime(CLOCK_MONOTONIC, &camera.next);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &camera.next, nullptr);
    camera.next.tv_nsec += 1000000000L / camera.rate;
    camera.next.tv_sec += camera.next.tv_nsec / 1000000000L;
    camera.next.tv_nsec %= 1000000000L;
    const unsigned index = camera.queued.front();
    camera.queued.pop_front();
    memcpy(camera.memory + static_cast<size_t>(index) * camera.size, camera.picture.data(), camera.picture.size());
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    buffer->index = index;
    buffer->bytesused = static_cast<unsigned>(camera.picture.size());
    buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    buffer->timestamp = {now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

int answer(unsigned long request, void* argument) {
    switch (request) {
        case VIDIOC_QUERYCAP: {
            auto* found = static_cast<v4l2_capability*>(argument);
            memset(found, 0, sizeof *found);
            snprintf(reinterpret_cast<char*>(found->card), sizeof found->card, "camera");
            found->capabilities = found->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
            return 0;
        }
        case VIDIOC_G_INPUT:
            *static_cast<int*>(argument) = 0;
            return 0;
        case VIDIOC_ENUMINPUT: {
            auto* input = static_cast<v4l2_input*>(argument);
            if (input->index) return refuse(EINVAL);
            input->type = V4L2_INPUT_TYPE_CAMERA;
            return 0;
        }
        case VIDIOC_G_FMT:
        case VIDIOC_S_FMT:  // a camera answers with what it can instead of what was asked for
            describe(static_cast<v4l2_format*>(argument));
            return 0;
        case VIDIOC_G_PARM:
        case VIDIOC_S_PARM: {
            auto* found = static_cast<v4l2_streamparm*>(argument);
            found->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
            found->parm.capture.timeperframe = {1, camera.rate};
            return 0;
        }
        case VIDIOC_REQBUFS:
            static_cast<v4l2_requestbuffers*>(argument)->count = kBuffers;
            return 0;
        case VIDIOC_QUERYBUF: {
            auto* buffer = static_cast<v4l2_buffer*>(argument);
            if (buffer->index >= kBuffers) return refuse(EINVAL);
            buffer->length = camera.size;
            buffer->m.offset = buffer->index * camera.size;
            return 0;
        }
        case VIDIOC_QBUF:
            camera.queued.push_back(static_cast<v4l2_buffer*>(argument)->index);
            return 0;
        case VIDIOC_DQBUF:
            return take(static_cast<v4l2_buffer*>(argument));
        case VIDIOC_STREAMON:
        case VIDIOC_STREAMOFF:
            return 0;
        default:
            return refuse(ENOTTY);
    }
}

int opened(const char* name, const char* path, int flags, mode_t mode) {
    if (!strcmp(path, kPath)) {
        const std::lock_guard<std::mutex> lock(turn);
        const int found = plugged_in();
        return found < 0 ? refuse(ENOENT) : found;
    }
    using Open = int (*)(const char*, int, ...);
    return reinterpret_cast<Open>(dlsym(RTLD_NEXT, name))(path, flags, mode);
}

}  // namespace

#define OPENED(name)                                        \
    va_list rest;                                           \
    va_start(rest, flags);                                  \
    const mode_t mode = va_arg(rest, mode_t);               \
    va_end(rest);                                           \
    return opened(name, path, flags, mode)

extern "C" int open(const char* path, int flags, ...) { OPENED("open"); }
extern "C" int open64(const char* path, int flags, ...) { OPENED("open64"); }

extern "C" int ioctl(int fd, unsigned long request, ...) noexcept {
    va_list rest;
    va_start(rest, request);
    void* argument = va_arg(rest, void*);
    va_end(rest);
    if (fd >= 0 && fd == camera.fd) {
        const std::lock_guard<std::mutex> lock(turn);
        return answer(request, argument);
    }
    using Ioctl = int (*)(int, unsigned long, ...);
    return reinterpret_cast<Ioctl>(dlsym(RTLD_NEXT, "ioctl"))(fd, request, argument);
}

extern "C" int close(int fd) {
    if (fd >= 0 && fd == camera.fd) camera.fd = -1;  // the number is soon another file's
    using Close = int (*)(int);
    return reinterpret_cast<Close>(dlsym(RTLD_NEXT, "close"))(fd);
}
