// Small pictures from the planes: the detector's input and the thumbnail. The twin of streamer/device/cpu.py `view`.
#include "nv12.cuh"

struct Source {             // the part of one frame that is looked at
    const uint8_t *luma;    // its first sample
    const uint8_t *chroma;
    int luma_pitch, chroma_pitch;  // bytes
};

struct Halved {             // a plane, halved `level` times (0 to 3) by means of 2 x 2
    int level, width, height;
};

struct Laid {               // how that part is laid into the tensor
    Halved luma, chroma;
    int shown_width, shown_height;  // of the picture within the tensor, at its top left
};

struct Drawn {              // what the tensor holds
    int width, height;
    int rgb;
    float scale, grey;      // of samples 0..255; what the rest of the tensor holds
    float matrix[12];       // B G R from Y Cb Cr 1
    float offset;           // added after the scale
};

struct ViewArgs {           // the same part of several frames
    const Source *sources;  // one per picture of the batch
    void *tensor;           // (batch, 3, height, width)
    Laid laid;              // the same for all
    Drawn drawn;
};

struct Crop {               // one part of a frame
    Source source;
    Laid laid;
};

struct CropArgs {           // several parts of one frame
    const Crop *crops;      // one per picture of the batch
    void *tensor;           // (batch, 3, height, width)
    Drawn drawn;
};

// Means of 2 x 2, rounded at each level, as OpenCV's INTER_AREA makes them.
template <int LEVEL>
__device__ __forceinline__ int halved(const uint8_t *plane, int pitch, int lanes, int x, int y) {
    if constexpr (LEVEL == 0) {
        return plane[(long long)y * pitch + x * lanes];
    } else {
        return (halved<LEVEL - 1>(plane, pitch, lanes, 2 * x, 2 * y) + halved<LEVEL - 1>(plane, pitch, lanes, 2 * x + 1, 2 * y)
                + halved<LEVEL - 1>(plane, pitch, lanes, 2 * x, 2 * y + 1)
                + halved<LEVEL - 1>(plane, pitch, lanes, 2 * x + 1, 2 * y + 1) + 2) >> 2;
    }
}

__device__ __forceinline__ int tap(const uint8_t *plane, int pitch, int lanes, int level, int x, int y) {
    switch (level) {
        case 0: return halved<0>(plane, pitch, lanes, x, y);
        case 1: return halved<1>(plane, pitch, lanes, x, y);
        case 2: return halved<2>(plane, pitch, lanes, x, y);
        default: return halved<3>(plane, pitch, lanes, x, y);
    }
}

// A sample of a scaled plane, between four of the halved one, rounded. One copy of it: its code is large.
__device__ __noinline__ int scaled(const uint8_t *plane, int pitch, int lanes, Halved size, int width, int height, int x, int y) {
    float at_x = ((float)x + 0.5f) * ((float)size.width / (float)width) - 0.5f;
    float at_y = ((float)y + 0.5f) * ((float)size.height / (float)height) - 0.5f;
    at_x = fminf(fmaxf(at_x, 0.0f), (float)(size.width - 1));
    at_y = fminf(fmaxf(at_y, 0.0f), (float)(size.height - 1));
    int left = (int)at_x, above = (int)at_y;
    float along = at_x - (float)left, down = at_y - (float)above, sum = 0.0f;
#pragma unroll 1
    for (int corner = 0; corner < 4; corner++) {
        int right = corner & 1, below = corner >> 1;
        int sample = tap(plane, pitch, lanes, size.level, min(left + right, size.width - 1), min(above + below, size.height - 1));
        sum += (float)sample * (right ? along : 1.0f - along) * (below ? down : 1.0f - down);
    }
    return (int)(sum + 0.5f);
}

__device__ __forceinline__ void put(float *tensor, long long index, float value) { tensor[index] = value; }
__device__ __forceinline__ void put(__half *tensor, long long index, float value) { tensor[index] = __float2half_rn(value); }

// One pixel of the picture `blockIdx.z` of the batch.
template <typename Value>
__device__ __forceinline__ void show(const Source &source, const Laid &laid, const Drawn &drawn, Value *tensor) {
    int x = (int)(blockIdx.x * blockDim.x + threadIdx.x), y = (int)(blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= drawn.width || y >= drawn.height) return;
    long long area = (long long)drawn.width * drawn.height, at = blockIdx.z * 3 * area + (long long)y * drawn.width + x;
    bool inside = x < laid.shown_width && y < laid.shown_height;
    int luma = 0, blue = 0, red = 0;
    if (inside) {
        luma = scaled(source.luma, source.luma_pitch, 1, laid.luma, laid.shown_width, laid.shown_height, x, y);
        blue = scaled(source.chroma, source.chroma_pitch, 2, laid.chroma, laid.shown_width, laid.shown_height, x, y);
        red = scaled(source.chroma + 1, source.chroma_pitch, 2, laid.chroma, laid.shown_width, laid.shown_height, x, y);
    }
    for (int channel = 0; channel < 3; channel++) {
        const float *row = drawn.matrix + 4 * channel;
        float value = row[0] * (float)luma + row[1] * (float)blue + row[2] * (float)red + row[3];
        value = rintf(fminf(fmaxf(value, 0.0f), 255.0f)) * drawn.scale + drawn.offset;
        put(tensor, at + (drawn.rgb ? 2 - channel : channel) * area, inside ? value : drawn.grey);
    }
}

template <typename Value>
__device__ __forceinline__ void view(const ViewArgs &args) {
    show(args.sources[blockIdx.z], args.laid, args.drawn, (Value *)args.tensor);
}

template <typename Value>
__device__ __forceinline__ void crop(const CropArgs &args) {
    show(args.crops[blockIdx.z].source, args.crops[blockIdx.z].laid, args.drawn, (Value *)args.tensor);
}

extern "C" __global__ void view_f32(ViewArgs args) { view<float>(args); }

extern "C" __global__ void view_f16(ViewArgs args) { view<__half>(args); }

extern "C" __global__ void crop_f32(CropArgs args) { crop<float>(args); }

extern "C" __global__ void crop_f16(CropArgs args) { crop<__half>(args); }

struct TurnArgs {
    const void *tensor;     // (planes, height, width), or (planes, width, height) for an odd number of quarters
    void *turned;           // (planes, height, width)
    int quarters;           // 1 to 3, counterclockwise as NumPy's rot90 turns
    int width, height;      // of what is written
    int unused;
};

template <typename Value>
__device__ __forceinline__ void turn(const TurnArgs &args) {
    int x = (int)(blockIdx.x * blockDim.x + threadIdx.x), y = (int)(blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= args.width || y >= args.height) return;
    int column = x, row = y, columns = args.width;
    if (args.quarters % 2) columns = args.height, column = y, row = x;
    int rows = args.quarters % 2 ? args.width : args.height;
    if (args.quarters != 3) column = columns - 1 - column;
    if (args.quarters != 1) row = rows - 1 - row;
    long long plane = (long long)blockIdx.z * args.width * args.height;
    const Value *tensor = (const Value *)args.tensor + plane;
    ((Value *)args.turned)[plane + (long long)y * args.width + x] = tensor[(long long)row * columns + column];
}

extern "C" __global__ void turn_f32(TurnArgs args) { turn<float>(args); }

extern "C" __global__ void turn_f16(TurnArgs args) { turn<__half>(args); }

struct ThumbnailArgs {
    const uint8_t *luma;
    uint8_t *small;         // (height, width)
    Halved size;
    int pitch, width, height;
};

extern "C" __global__ void thumbnail(ThumbnailArgs args) {
    int x = (int)(blockIdx.x * blockDim.x + threadIdx.x), y = (int)(blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= args.width || y >= args.height) return;
    args.small[y * args.width + x] = (uint8_t)scaled(args.luma, args.pitch, 1, args.size, args.width, args.height, x, y);
}
