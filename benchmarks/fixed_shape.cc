// The max contraction of one shape, tuned by hand for the machine that compiles it: what the kernels
// of semijax/native, which take any shape on any machine, are measured against.
//     c++ -O3 -march=native -fopenmp -shared -fPIC -DM=512 -DK=512 -DN=128

#include <cmath>
#include <cstring>

#ifdef __AVX512F__
enum { LANES = 16, ROWS = 6, VECTORS = 4 };
#else
enum { LANES = 8, ROWS = 4, VECTORS = 2 };
#endif
typedef float vector __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int bits __attribute__((vector_size(4 * LANES), aligned(4)));
enum { WIDTH = VECTORS * LANES, DEPTH = 128 };

static inline __attribute__((always_inline)) void tile(int rows, int depth, const float* w, const vector* g, float* out) {
  vector best[ROWS][VECTORS];
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < VECTORS; ++v) std::memcpy(&best[r][v], out + r * N + v * LANES, 4 * LANES);
  for (int k = 0; k < depth; ++k, g += VECTORS)
    for (int r = 0; r < rows; ++r)
      for (int v = 0; v < VECTORS; ++v) {
        const vector x = std::fabs(w[r * K + k]) * g[v];
        best[r][v] = x > best[r][v] ? x : best[r][v];
      }
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < VECTORS; ++v) std::memcpy(out + r * N + v * LANES, &best[r][v], 4 * LANES);
}

extern "C" void contract(const float* w, const float* g, float* out) {
  std::memset(out, 0, 4l * M * N);
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int first = 0; first < M; first += 96)
    for (int column = 0; column < N; column += WIDTH)
      for (int k = 0; k < K; k += DEPTH) {
        vector panel[DEPTH * VECTORS] __attribute__((aligned(64)));
        for (int i = 0; i < DEPTH * VECTORS; ++i) {
          bits b;
          std::memcpy(&b, g + (k + i / VECTORS) * N + column + i % VECTORS * LANES, sizeof b);
          panel[i] = (vector)(b & 0x7fffffff);
        }
        const int last = first + 96 < M ? first + 96 : M;
        int row = first;
        for (; row + ROWS <= last; row += ROWS)
          tile(ROWS, DEPTH, w + row * K + k, panel, out + row * N + column);
        for (; row < last; ++row) tile(1, DEPTH, w + row * K + k, panel, out + row * N + column);
      }
}
