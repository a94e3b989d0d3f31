// One contraction by the baseline kernels, for a processor that only an emulator has: it reads the
// sizes and operands from its input and writes the result.
#include "contraction.h"

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <vector>

using semijax::Index;

static std::vector<float> read(Index count) {
  std::vector<float> numbers(count);
  if (std::fread(numbers.data(), sizeof(float), count, stdin) != static_cast<std::size_t>(count))
    std::exit(1);
  return numbers;
}

int main() {
  std::int64_t sizes[9];
  if (std::fread(sizes, sizeof sizes, 1, stdin) != 1) return 1;
  semijax::Contraction call{};
  call.kind = static_cast<semijax::Kind>(sizes[0]);
  call.list = sizes[1];
  call.weight_type = semijax::Number::kF32;
  call.weights_columns_first = sizes[2];
  call.columns_first = sizes[3];
  call.batch = sizes[4], call.rows = sizes[5], call.depth = sizes[6], call.columns = sizes[7];
  const Index arrays = sizes[8], numbers = semijax::interleaved(call);
  const auto weights = read(call.batch * call.rows * call.depth);
  call.weights = weights.data();
  std::vector<float> elements[2], result[2];
  for (Index i = 0; i < arrays; ++i) {
    elements[i] = read(call.batch * call.depth * call.columns * numbers);
    result[i].resize(call.batch * call.rows * call.columns * numbers);
    call.elements[i] = elements[i].data();
    call.result[i] = result[i].data();
  }
  std::vector<std::max_align_t> scratch(semijax::scratch_bytes(call) / sizeof(std::max_align_t) + 1);
  using semijax::kMostRows, semijax::kStrip;
  for (Index b = 0; b < call.batch; ++b)
    for (Index m = 0; m < call.rows; m += kMostRows)
      for (Index n = 0; n < call.columns; n += kStrip) {
        const Index rows = call.rows - m < kMostRows ? call.rows - m : kMostRows;
        const Index columns = call.columns - n < kStrip ? call.columns - n : kStrip;
        semijax::baseline::run(call, {b, m, rows, n, columns}, scratch.data());
      }
  for (Index i = 0; i < arrays; ++i)
    std::fwrite(result[i].data(), sizeof(float), result[i].size(), stdout);
}
