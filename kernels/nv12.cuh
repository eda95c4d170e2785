// What host and kernels agree on: NV12 surfaces, cells, regions. See Note [Mask regions] in streamer/masking.py.
//
// The structures repeat streamer/device/cuda_layout.py field by field; a test compares their sizes. Only the subset of CUDA
// that tests/device/shim/shim.h knows is used here: no warp intrinsics, no textures, no dynamic shared memory.
#pragma once

#ifndef STREAMER_SHIM
#include <cuda_fp16.h>
#include <cstdint>
#endif

struct Surface {             // one NV12 picture to read and one to write, which may be the same
    const uint8_t *luma;     // rows of `width` samples; 4-byte aligned, as are all pitches
    const uint8_t *chroma;   // height / 2 rows of `width` bytes, Cb Cr Cb Cr
    uint8_t *luma_out;
    uint8_t *chroma_out;
    int luma_pitch, chroma_pitch, luma_out_pitch, chroma_out_pitch;  // bytes
    int width, height;       // luma pixels, even
    int first_region, regions;
};

struct Grid {
    int x0, y0, x1, y1;      // luma pixels, even; may reach outside the picture
    int cell;                // luma pixels, even
    int first_column, first_row, columns, rows;  // of the cells that lie in the picture
    int surface;
    int first_cell;          // index of its first cell among all grids' cells
    int first_block;         // of the launch of `sum_cells`
    int strips;              // blocks per cell of that launch
    int unused;
};

struct Region {
    int x0, y0, x1, y1;      // luma pixels, even; may reach outside the picture
    int shape;               // 0 rectangle, 1 ellipse
    int feather;             // luma pixels, even
    int grid;
    int unused;
};

__device__ __forceinline__ int clamped(int value, int low, int high) {
    return value < low ? low : value > high ? high : value;
}

__device__ __forceinline__ int floor_div(int value, int by) {  // by > 0
    int quotient = value / by;
    return quotient * by > value ? quotient - 1 : quotient;
}

// The last of `count` entries whose `first` is not above `index`; entries lie in ascending order, the first at 0.
template <typename Entry>
__device__ __forceinline__ int last_not_above(const Entry *entries, int count, int index, int Entry::*first) {
    int low = 0, high = count - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (entries[middle].*first <= index) low = middle; else high = middle - 1;
    }
    return low;
}

// The part of a cell that lies in grid and picture, in luma pixels; half-open.
struct Cell { int left, top, right, bottom; };

__device__ __forceinline__ Cell cell_of(const Grid &grid, int column, int row, int width, int height) {
    int x = grid.x0 + (grid.first_column + column) * grid.cell, y = grid.y0 + (grid.first_row + row) * grid.cell;
    return {max(x, 0), max(y, 0), min(min(x + grid.cell, grid.x1), width), min(min(y + grid.cell, grid.y1), height)};
}

// 1 on the ellipse with sides `width` and `height`, less inside; dx and dy in half pixels from its centre.
__device__ __forceinline__ float ellipse_level(float dx, float dy, long long width, long long height) {
    float per_width = 1.0f / (float)(width * width), per_height = 1.0f / (float)(height * height);
    return dx * dx * per_width + dy * dy * per_height;
}

// Weight 0..256 of a region at a luma pixel; the twin of `alpha` in streamer/masking.py, to the bit.
__device__ __forceinline__ int weight_at(const Region &region, int x, int y) {
    int width = region.x1 - region.x0, height = region.y1 - region.y0, feather = region.feather;
    int across = x - region.x0, down = y - region.y0;
    int away = max(max(-across, across - width + 1), max(max(-down, down - height + 1), 0));
    if (away > feather) return 0;
    if (region.shape == 0) return 256 * (feather + 1 - away) / (feather + 1);
    float dx = (float)(2 * across + 1 - width), dy = (float)(2 * down + 1 - height);
    float inner = ellipse_level(dx, dy, width, height);
    if (inner <= 1.0f) return 256;
    if (feather == 0) return 0;
    float outer = ellipse_level(dx, dy, width + 2 * feather, height + 2 * feather);
    float fall = 256.0f * ((1.0f - outer) / (inner - outer));
    return (int)fminf(fmaxf(fall, 0.0f), 256.0f);
}
