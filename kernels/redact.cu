// Masks of all regions of a batch of frames: sums per cell, means, painting. kernels/README.md has reads, writes and costs.
#include "nv12.cuh"

enum Style { MOSAIC = 0, BLUR = 1, SOLID = 2 };

constexpr int SUM_X = 16, SUM_Y = 8;       // threads of a block of sum_cells: words of 4 bytes by rows
constexpr int PAINT_X = 16, PAINT_Y = 16;  // threads of a block of paint, each for 4 x 2 luma pixels
constexpr unsigned LAST = (1u << 22) - 1;  // ranks count down from here: of equal weights the first region wins

struct SumArgs {
    const Surface *surfaces;
    const Grid *grids;
    unsigned long long *sums;  // (cells, 3): luma, Cb, Cr; zero before the launch
    int grids_count;
    int unused;
};

// One block per cell and strip of its rows: adds the samples of its part to the cell's three sums.
extern "C" __global__ void sum_cells(SumArgs args) {
    __shared__ unsigned parts[3][SUM_X * SUM_Y];
    const Grid &grid = args.grids[last_not_above(args.grids, args.grids_count, (int)blockIdx.x, &Grid::first_block)];
    const Surface &surface = args.surfaces[grid.surface];
    int place = (int)blockIdx.x - grid.first_block, index = place / grid.strips, strip = place % grid.strips;
    Cell cell = cell_of(grid, index % grid.columns, index / grid.columns, surface.width, surface.height);
    int strip_rows = 2 * ((grid.cell / 2 + grid.strips - 1) / grid.strips);
    int begin = grid.y0 + (grid.first_row + index / grid.columns) * grid.cell + strip * strip_rows;
    int top = max(cell.top, begin), bottom = min(cell.bottom, begin + strip_rows);
    unsigned luma = 0, blue = 0, red = 0;
    for (int y = top + (int)threadIdx.y; y < bottom; y += SUM_Y) {
        const uint8_t *luma_row = surface.luma + (long long)y * surface.luma_pitch;
        const uint8_t *chroma_row = surface.chroma + (long long)(y / 2) * surface.chroma_pitch;
        for (int x = (cell.left & ~3) + 4 * (int)threadIdx.x; x < cell.right; x += 4 * SUM_X) {
            unsigned mask = 0xffffffffu;
            if (x < cell.left) mask &= 0xffffffffu << (8 * (cell.left - x));
            if (x + 4 > cell.right) mask &= 0xffffffffu >> (8 * (x + 4 - cell.right));
            luma = __dp4a(*(const unsigned *)(luma_row + x) & mask, 0x01010101u, luma);
            if (y % 2 == 0) {
                unsigned pairs = *(const unsigned *)(chroma_row + x) & mask;
                blue = __dp4a(pairs, 0x00010001u, blue);
                red = __dp4a(pairs, 0x01000100u, red);
            }
        }
    }
    int thread = (int)(threadIdx.y * SUM_X + threadIdx.x);
    parts[0][thread] = luma, parts[1][thread] = blue, parts[2][thread] = red;
    for (int half = SUM_X * SUM_Y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half)
            for (int plane = 0; plane < 3; plane++) parts[plane][thread] += parts[plane][thread + half];
    }
    __syncthreads();
    if (thread < 3) atomicAdd(&args.sums[3 * (long long)(grid.first_cell + index) + thread], (unsigned long long)parts[thread][0]);
}

struct RoundArgs {
    const Surface *surfaces;
    const Grid *grids;
    const unsigned long long *sums;
    float4 *means;  // (cells): luma, Cb, Cr as whole numbers, 0
    int grids_count;
    int cells;
};

// One thread per cell: its three means, rounded to the nearest.
extern "C" __global__ void round_cells(RoundArgs args) {
    int index = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (index >= args.cells) return;
    const Grid &grid = args.grids[last_not_above(args.grids, args.grids_count, index, &Grid::first_cell)];
    const Surface &surface = args.surfaces[grid.surface];
    int place = index - grid.first_cell;
    Cell cell = cell_of(grid, place % grid.columns, place / grid.columns, surface.width, surface.height);
    long long count = (long long)max(cell.right - cell.left, 0) * max(cell.bottom - cell.top, 0);
    float mean[3];
    for (int plane = 0; plane < 3; plane++) {
        unsigned long long sum = args.sums[3 * (long long)index + plane], samples = plane ? count / 4 : count;
        mean[plane] = samples ? (float)((2 * sum + samples) / (2 * samples)) : 128.0f;
    }
    args.means[index] = make_float4(mean[0], mean[1], mean[2], 0.0f);
}

struct PaintArgs {
    const Surface *surfaces;
    const Grid *grids;
    const Region *regions;
    const float4 *means;
    int style;
    int solid_luma, solid_chroma;
    int unused;
};

__device__ __forceinline__ float plane_of(const float4 &mean, int plane) {
    return plane == 0 ? mean.x : plane == 1 ? mean.y : mean.z;
}

// What a style shows of a plane at a sample; `across` and `down` are its centre in half luma pixels from the grid's corner.
__device__ __forceinline__ int shown(const PaintArgs &args, const Grid &grid, int across, int down, int plane) {
    if (args.style == SOLID) return plane ? args.solid_chroma : args.solid_luma;
    const float4 *means = args.means + grid.first_cell;
    int columns = grid.columns, rows = grid.rows, unit = 2 * grid.cell;
    if (args.style == MOSAIC) {
        int column = clamped(floor_div(across, unit) - grid.first_column, 0, columns - 1);
        int row = clamped(floor_div(down, unit) - grid.first_row, 0, rows - 1);
        return (int)plane_of(means[row * columns + column], plane);
    }
    float per_unit = 1.0f / (float)unit;
    float at_x = (float)(across - grid.cell) * per_unit, at_y = (float)(down - grid.cell) * per_unit;
    float low_x = floorf(at_x), low_y = floorf(at_y);
    int column = (int)low_x - grid.first_column, row = (int)low_y - grid.first_row;
    int left = clamped(column, 0, columns - 1), right = clamped(column + 1, 0, columns - 1);
    int above = clamped(row, 0, rows - 1) * columns, below = clamped(row + 1, 0, rows - 1) * columns;
    float along = at_x - low_x;
    float upper = plane_of(means[above + left], plane), lower = plane_of(means[below + left], plane);
    upper += (plane_of(means[above + right], plane) - upper) * along;
    lower += (plane_of(means[below + right], plane) - lower) * along;
    return (int)(upper + (lower - upper) * (at_y - low_y) + 0.5f);
}

__device__ __forceinline__ int mixed(int before, unsigned key, const PaintArgs &args, const Surface &surface, int x, int y, int plane) {
    int weight = (int)(key >> 22);
    if (weight == 0) return before;
    const Region &region = args.regions[surface.first_region + (int)(LAST - (key & LAST))];
    const Grid &grid = args.grids[region.grid];
    int centre = plane ? 2 : 1;  // of a sample, in half luma pixels from its corner
    int value = shown(args, grid, 2 * (x - grid.x0) + centre, 2 * (y - grid.y0) + centre, plane);
    return (before * (256 - weight) + value * weight + 128) >> 8;
}

__device__ __forceinline__ void load4(const uint8_t *row, int x, int width, uint8_t *samples) {
    if (x + 4 <= width) {
        uchar4 word = *(const uchar4 *)(row + x);
        samples[0] = word.x, samples[1] = word.y, samples[2] = word.z, samples[3] = word.w;
    } else {
        for (int at = 0; at < 4; at++) samples[at] = x + at < width ? row[x + at] : 0;
    }
}

__device__ __forceinline__ void store4(uint8_t *row, int x, int width, const uint8_t *samples) {
    if (x + 4 <= width) {
        *(uchar4 *)(row + x) = make_uchar4(samples[0], samples[1], samples[2], samples[3]);
    } else {
        for (int at = 0; at < 4 && x + at < width; at++) row[x + at] = samples[at];
    }
}

// One thread per 4 x 2 luma pixels and their 2 chroma samples, one layer of blocks (z) per surface.
extern "C" __global__ void paint(PaintArgs args) {
    __shared__ int near[PAINT_X * PAINT_Y];
    const Surface &surface = args.surfaces[blockIdx.z];
    int tile_x = (int)blockIdx.x * 4 * PAINT_X, tile_y = (int)blockIdx.y * 2 * PAINT_Y;
    if (tile_x >= surface.width || tile_y >= surface.height) return;  // the same for the whole block
    int thread = (int)(threadIdx.y * PAINT_X + threadIdx.x);
    int x = tile_x + 4 * (int)threadIdx.x, y = tile_y + 2 * (int)threadIdx.y;
    unsigned luma[2][4] = {}, chroma[2] = {};  // weight << 22 | LAST - rank of the region that wins so far
    for (int base = 0; base < surface.regions; base += PAINT_X * PAINT_Y) {
        int count = min(surface.regions - base, PAINT_X * PAINT_Y);
        if (thread < count) {
            const Region &region = args.regions[surface.first_region + base + thread];
            int edge = region.feather;
            near[thread] = region.x0 - edge < tile_x + 4 * PAINT_X && region.x1 + edge > tile_x
                && region.y0 - edge < tile_y + 2 * PAINT_Y && region.y1 + edge > tile_y;
        }
        __syncthreads();
        for (int rank = 0; rank < count; rank++) {
            if (!near[rank]) continue;
            const Region &region = args.regions[surface.first_region + base + rank];
            unsigned place = LAST - (unsigned)(base + rank);
            for (int pair = 0; pair < 2; pair++) {
                unsigned most = 0;
                for (int at = 0; at < 4; at++) {
                    int column = 2 * pair + at % 2, row = at / 2;
                    unsigned weight = (unsigned)weight_at(region, x + column, y + row);
                    most = max(most, weight);
                    if (weight) luma[row][column] = max(luma[row][column], weight << 22 | place);
                }
                if (most) chroma[pair] = max(chroma[pair], most << 22 | place);
            }
        }
        __syncthreads();
    }
    bool elsewhere = surface.luma != surface.luma_out;
    if (x >= surface.width || y >= surface.height || !(chroma[0] | chroma[1] | (unsigned)elsewhere)) return;
    uint8_t samples[4];
    for (int row = 0; row < 2; row++) {
        load4(surface.luma + (long long)(y + row) * surface.luma_pitch, x, surface.width, samples);
        for (int at = 0; at < 4; at++) samples[at] = (uint8_t)mixed(samples[at], luma[row][at], args, surface, x + at, y + row, 0);
        store4(surface.luma_out + (long long)(y + row) * surface.luma_out_pitch, x, surface.width, samples);
    }
    load4(surface.chroma + (long long)(y / 2) * surface.chroma_pitch, x, surface.width, samples);
    for (int at = 0; at < 4; at++)
        samples[at] = (uint8_t)mixed(samples[at], chroma[at / 2], args, surface, x + at / 2 * 2, y, 1 + at % 2);
    store4(surface.chroma_out + (long long)(y / 2) * surface.chroma_out_pitch, x, surface.width, samples);
}

struct CoverArgs {
    const Surface *surfaces;
    int luma, chroma;
};

// One thread per 4 x 2 luma pixels, one layer of blocks (z) per surface: one colour everywhere.
extern "C" __global__ void cover(CoverArgs args) {
    const Surface &surface = args.surfaces[blockIdx.z];
    int x = 4 * (int)(blockIdx.x * blockDim.x + threadIdx.x), y = 2 * (int)(blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= surface.width || y >= surface.height) return;
    uint8_t luma = (uint8_t)args.luma, chroma = (uint8_t)args.chroma;
    const uint8_t lumas[4] = {luma, luma, luma, luma}, chromas[4] = {chroma, chroma, chroma, chroma};
    for (int row = 0; row < 2; row++)
        store4(surface.luma_out + (long long)(y + row) * surface.luma_out_pitch, x, surface.width, lumas);
    store4(surface.chroma_out + (long long)(y / 2) * surface.chroma_out_pitch, x, surface.width, chromas);
}
