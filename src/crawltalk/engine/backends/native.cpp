// One forward pass of a few rows on a CPU: the whole model in one call, on a team of threads that stays in it.
//
// A row is a token, or a vector that was given instead, at a position of a sequence. Rows never meet except in
// attention, through the cache, and every sum has one order whatever the number of rows: so a row's result does
// not depend on its batch, to the last bit.
//
// Letters: D width, H query heads, K key/value heads, E head size, F inner size, V vocabulary. Matrices are
// stored in panels of as many outputs as a vector register has lanes, so that it holds one number of each;
// columns are padded to 32, with zeros. Compiled for the machine that it runs on (cpu.py); vectors are the
// compiler's own, but for the products that only some processors have.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

#if defined(__AVX512BW__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int GROUP = 32, BLOCK = 16;
typedef float V __attribute__((vector_size(4 * LANES)));
typedef float VU __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(4 * LANES)));
typedef int32_t IU __attribute__((vector_size(4 * LANES), aligned(1), may_alias));
typedef uint16_t S __attribute__((vector_size(2 * LANES)));
typedef uint16_t SU __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef int16_t N __attribute__((vector_size(2 * LANES)));
typedef uint16_t W __attribute__((vector_size(4 * LANES)));  // two in each lane
typedef uint16_t WU __attribute__((vector_size(4 * LANES), aligned(1), may_alias));

inline V load(const float* p) { return *(const VU*)p; }
inline void store(float* p, V v) { *(VU*)p = v; }
inline V broadcast(float x) { return V{} + x; }
// a * b + c, rounded once where the processor can. The compiler is told not to contract on its own (cpu.py): GCC
// does so in one loop and not in another (it breaks chains of FMA for AMD's Zen), and then a row's last bits
// depend on how many rows are computed at once.
inline V fma(V a, V b, V c) {
#if defined(__AVX512BW__)
  return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
  return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}
inline V fma(V a, float b, V c) { return fma(a, broadcast(b), c); }
inline float fma(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
// bfloat16 is the upper half of a float.
inline V load(const uint16_t* p) { return (V)(__builtin_convertvector((S) * (const SU*)p, I) << 16); }
inline void store(uint16_t* p, V v) {
  const I bits = (I)v;
  *(SU*)p = __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, S);
}

inline V maximum(V a, V b) { return a > b ? a : b; }
inline V absolute(V v) { return (V)((I)v & 0x7fffffff); }
// All lanes in one, halves with halves.
template <class T, class Op>
inline T reduce(T* lanes, Op op) {
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] = op(lanes[i], lanes[i + half]);
  return lanes[0];
}
inline float sum_lanes(V v) {
  float lanes[LANES];
  store(lanes, v);
  return reduce(lanes, [](float a, float b) { return a + b; });
}
inline int32_t sum_lanes(I v) {
  int32_t lanes[LANES];
  memcpy(lanes, &v, sizeof lanes);
  return reduce(lanes, [](int32_t a, int32_t b) { return a + b; });
}
inline float max_lane(V v) {
  float lanes[LANES];
  store(lanes, v);
  return reduce(lanes, [](float a, float b) { return a > b ? a : b; });
}
// Lanes behind the lane `last` become `other`.
inline V mask_after(V v, int last, float other) {
  I lane;
  for (int i = 0; i < LANES; i++) lane[i] = i;
  return lane > last ? broadcast(other) : v;
}
inline V rounded(V a, float b) { return fma(a, b, broadcast(12582912.f)) - 12582912.f; }  // a * b; 1.5 x 2^23: beyond it a float has no fraction

// e^x: 2^n times a polynomial (Cephes, expf).
inline V exponential(V x) {
  x = maximum(x, broadcast(-87.f));
  x = x < 87.f ? x : broadcast(87.f);
  V n = rounded(x, 1.44269504f);
  V r = fma(n, 2.12194440e-4f, fma(n, -0.693359375f, x));
  V p = broadcast(1.9875691500e-4f);
  for (float next : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) p = fma(p, r, broadcast(next));
  p = fma(p * r, r, r) + 1.f;
  return p * (V)((__builtin_convertvector(n, I) + 127) << 23);
}
inline V sigmoid(V x) { return 1.f / (1.f + exponential(-x)); }

// Threads that wait for the next call, and meet at barriers within it. A call is for all of them, or for the
// caller alone.
class Team {
 public:
  explicit Team(int size) : max_threads(size) {
    for (int t = 1; t < max_threads; t++) threads.emplace_back([this, t] { work_loop(t); });
  }
  ~Team() {
    ending = true;
    begin();
    for (auto& thread : threads) thread.join();
  }
  int size() const { return active; }
  int max_size() const { return max_threads; }
  void run(int size, const std::function<void(int)>& work) {
    active = size;
    if (size == 1) return work(0);
    job = &work;
    begin();
    work(0);
    barrier();
  }
  void barrier() {
    if (active == 1) return;
    uint32_t now = phase.load(std::memory_order_acquire);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == max_threads) {
      arrived.store(0, std::memory_order_relaxed);
      phase.store(now + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; phase.load(std::memory_order_acquire) == now; spins++) wait(spins);
  }

 private:
  static constexpr int SPINS = 100;       // few: the thread that is waited for may need this very processor
  static constexpr int IDLE_SPINS = 300;  // before a thread that waits for the next call sleeps
  const int max_threads;
  int active = 1;
  std::vector<std::thread> threads;
  const std::function<void(int)>* job = nullptr;
  std::atomic<uint32_t> calls{0}, phase{0};
  std::atomic<int> arrived{0};
  std::atomic<bool> ending{false};
  std::mutex mutex;
  std::condition_variable woken;

  static void wait(int spins) {
    if (spins > SPINS) return std::this_thread::yield();
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
  void begin() {
    { std::lock_guard<std::mutex> hold(mutex); calls.fetch_add(1, std::memory_order_release); }
    woken.notify_all();
  }
  void work_loop(int t) {
    for (uint32_t seen = 0;;) {
      for (int spins = 0; spins < IDLE_SPINS && calls.load(std::memory_order_acquire) == seen; spins++) wait(spins);
      if (calls.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> hold(mutex);
        woken.wait(hold, [&] { return calls.load(std::memory_order_acquire) != seen; });
      }
      seen++;
      if (ending) return;
      (*job)(t);
      barrier();
    }
  }
};

// Whether calls of one size are quicker on all threads or on the caller's alone: that depends on the work, and
// on what else runs on this machine. Now and then the other way is tried: more rarely each time that it is
// slower, at once if calls have become slow.
class ThreadChoice {
 public:
  bool use_all() const { return all_threads != (trial > 0); }
  void record(double seconds) {
    if (trial == 0) {
      mean = mean ? 0.9 * mean + 0.1 * std::min(seconds, 2 * mean) : seconds;  // one call may be stopped by chance
      if (++calls == FIRST) usual = mean;
      if (calls >= wait || (calls > FIRST && mean > 1.5 * usual)) calls = 0, trial = TRIALS, tried = 0;
      return;
    }
    const bool first = trial == TRIALS;  // it may have to wake the others
    if (!first) tried += seconds / (TRIALS - 1);
    const bool lost = seconds > (first ? 4 : 1.5) * mean || tried > mean;
    if (!lost && --trial > 0) return;
    trial = 0;
    wait = lost ? std::min(2 * wait, 1024) : FIRST;
    if (!lost) all_threads = !all_threads, mean = tried;
  }

 private:
  static constexpr int TRIALS = 5, FIRST = 16;
  bool all_threads = false;
  int calls = 0, wait = FIRST, trial = 0;
  double mean = 0, usual = 0, tried = 0;
};

struct Range { int begin, end; };
// What thread t of `threads` computes of `count` items.
inline Range partition(int count, int t, int threads) {
  return {int((int64_t)count * t / threads), int((int64_t)count * (t + 1) / threads)};
}

}  // namespace

extern "C" {

struct Config {
  int32_t kind;  // of the weights: 0 float32, 1 bfloat16, 2 int8 in groups of 32 with bfloat16 scales
  int32_t layers, width, heads, kv_heads, head_dim, mlp, vocab, table_width, blocks, threads;
  int32_t layer_norm, gated, rotary;
  float eps;
};
struct Matrix {
  int32_t outputs, inputs;  // inputs: padded to 32
  // float [panels][inputs][LANES], bf16 [panels][inputs / 2][LANES][2], uint8 (+128) [panels][inputs / 4][LANES][4],
  // with the second and third of four exchanged
  const void* data;
  const uint16_t* scales;   // of int8: [panels][inputs / 32][LANES]
  const float* bias;        // or null
};
struct Layer {
  const float *norm1, *norm1_bias, *norm2, *norm2_bias, *q_norm, *k_norm;
  Matrix qkv, out, up, down;  // up: if gated, alternate panels of gates and of the inner layer
};
struct Weights {
  const Layer* layers;
  const float *norm, *norm_bias, *cos, *sin, *positions;
  const void* embedding;  // float or bfloat16
  Matrix head;
  // [layers][blocks][K][E][16] and [layers][blocks][K][16][E]; float, or bfloat16 unless the weights are float
  void *keys, *values;
  const int32_t* block_tables;
};

}  // extern "C"

namespace {

enum Kind { FLOAT, BFLOAT, INT8 };
constexpr float MOST = 32767;  // the largest of the numbers that int8 weights are multiplied with: they have 16 bits
#if defined(__AVX512BF16__)
constexpr bool BF16_PAIRS = true;  // products of two bfloat16 pairs at once
#else
constexpr bool BF16_PAIRS = false;
#endif
#if defined(__AVX512BW__)
constexpr int TILE = 8;
#else
constexpr int TILE = 4;
#endif

// What a matrix is multiplied with, in its own kind of numbers.
struct Activations {
  int stride = 0;
  std::vector<float> x;
  std::vector<uint16_t> pairs;
  std::vector<int16_t> numbers;
  std::vector<float> scale;     // of each group
  std::vector<int32_t> offset;  // what the +128 of the weights adds to the sum over a group, negated

  void reserve(int rows, int columns) {
    stride = (columns + GROUP - 1) / GROUP * GROUP;
    size_t size = (size_t)rows * stride;
    x.assign(size, 0.f), pairs.assign(size, 0), numbers.assign(size, 0);
    scale.assign(size / GROUP, 0.f), offset.assign(size / GROUP, 0);
  }
};

template <Kind K>
void convert(Activations& rows, int row, const float* from, int columns) {
  size_t start = (size_t)row * rows.stride;
  int padded = (columns + GROUP - 1) / GROUP * GROUP;
  if constexpr (K == FLOAT || (K == BFLOAT && !BF16_PAIRS)) {
    memcpy(&rows.x[start], from, sizeof(float) * columns);
    std::fill(&rows.x[start] + columns, &rows.x[start] + padded, 0.f);
  } else if constexpr (K == BFLOAT) {
    for (int i = 0; i < columns; i += LANES) store(&rows.pairs[start + i], load(from + i));
    std::fill(&rows.pairs[start] + columns, &rows.pairs[start] + padded, 0);
  } else {
    for (int g = 0; g < padded; g += GROUP) {
      V a[GROUP / LANES] = {}, most_V = {};
      for (int h = 0; h < GROUP / LANES && g + h * LANES < columns; h++) {
        a[h] = load(from + g + h * LANES);
        most_V = maximum(most_V, absolute(a[h]));
      }
      const float most = max_lane(most_V), inverse = most > 1e-30f ? MOST / most : 0.f;  // not infinite
      I sums = {};
      for (int h = 0; h < GROUP / LANES; h++) {
        const I number = __builtin_convertvector(rounded(a[h], inverse), I);
        const N narrow = __builtin_convertvector(number, N);
        memcpy(&rows.numbers[start + g + h * LANES], &narrow, sizeof narrow);
        sums += number;
      }
      rows.scale[(start + g) / GROUP] = most / MOST;
      rows.offset[(start + g) / GROUP] = -128 * sum_lanes(sums);
    }
  }
}

// sums + two products in each lane: weights (plus 128) times a pair of numbers, the same for all lanes.
inline I dot(I sums, W weights, const int16_t* numbers) {
  int32_t pair;
  memcpy(&pair, numbers, sizeof pair);
#if defined(__AVX512BW__) && defined(__AVX512VNNI__)
  return (I)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)weights, _mm512_set1_epi32(pair));
#elif defined(__AVX512BW__)
  return sums + (I)_mm512_madd_epi16((__m512i)weights, _mm512_set1_epi32(pair));
#elif defined(__AVXVNNI__)
  return (I)_mm256_dpwssd_avx_epi32((__m256i)sums, (__m256i)weights, _mm256_set1_epi32(pair));
#elif defined(__AVX2__)
  return sums + (I)_mm256_madd_epi16((__m256i)weights, _mm256_set1_epi32(pair));
#elif defined(__SSE2__)
  return sums + (I)_mm_madd_epi16((__m128i)weights, _mm_set1_epi32(pair));
#else
  return sums + ((I)weights & 0xffff) * numbers[0] + ((I)weights >> 16) * numbers[1];
#endif
}

constexpr int AHEAD = 8192;  // bytes of a matrix that are prefetched: processors by themselves stop at the ends of pages

// R rows times P panels. `put(row, panel, sums)` takes the result.
template <Kind K, int R, int P, class Put>
inline void tile(const Matrix& m, int panel, const Activations& rows, int row, Put&& put) {
  const int inputs = m.inputs;
  const bool fetch = R > 1 && row == 0;  // later rows find the panel in the cache, and a single one does not linger
  V sums[R][P] = {};
  if constexpr (K == FLOAT) {
    const float* w = (const float*)m.data + (size_t)panel * inputs * LANES;
    const float* x = &rows.x[(size_t)row * rows.stride];
    for (int k = 0; k < inputs; k++) {
      V v[P];
      for (int p = 0; p < P; p++) {
        const float* weights = w + ((size_t)p * inputs + k) * LANES;
        v[p] = load(weights);
        if (fetch) __builtin_prefetch((const char*)weights + AHEAD);
      }
      for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++) sums[r][p] = fma(v[p], x[(size_t)r * rows.stride + k], sums[r][p]);
    }
  } else if constexpr (K == BFLOAT) {
    const uint16_t* w = (const uint16_t*)m.data + (size_t)panel * inputs * LANES;
    for (int k = 0; k < inputs; k += 2) {
      I v[P];
      for (int p = 0; p < P; p++) {
        const uint16_t* weights = w + ((size_t)p * inputs + k) * LANES;
        v[p] = *(const IU*)weights;
        if (fetch) __builtin_prefetch((const char*)weights + AHEAD);
      }
      for (int r = 0; r < R; r++) {
        size_t index = (size_t)(row + r) * rows.stride + k;
#if defined(__AVX512BF16__)
        int32_t two;
        memcpy(&two, &rows.pairs[index], 4);
        __m512i x = _mm512_set1_epi32(two);
        for (int p = 0; p < P; p++) sums[r][p] = (V)_mm512_dpbf16_ps((__m512)sums[r][p], (__m512bh)(__m512i)v[p], (__m512bh)x);
#else
        for (int p = 0; p < P; p++) {
          sums[r][p] = fma((V)(v[p] << 16), rows.x[index], sums[r][p]);
          sums[r][p] = fma((V)(v[p] & (int32_t)0xffff0000), rows.x[index + 1], sums[r][p]);
        }
#endif
      }
    }
  } else {
    const uint8_t* w = (const uint8_t*)m.data + (size_t)panel * inputs * LANES;
    const int groups = inputs / GROUP;
    const uint16_t* scales = m.scales + (size_t)panel * groups * LANES;
    for (int g = 0; g < groups; g++) {
      for (int p = 0; fetch && p < P; p++)
        for (int k = 0; k < GROUP; k += 4) __builtin_prefetch(w + ((size_t)p * inputs + g * GROUP + k) * LANES + AHEAD);
      I whole[R][P];
      for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++) whole[r][p] = I{} + rows.offset[(size_t)(row + r) * rows.stride / GROUP + g];
      for (int k = 0; k < GROUP; k += 4) {
        W first[P], second[P];  // of four weights
        for (int p = 0; p < P; p++) {
          const W four = *(const WU*)(w + ((size_t)p * inputs + g * GROUP + k) * LANES);
          first[p] = four & 0xff, second[p] = four >> 8;
        }
        for (int r = 0; r < R; r++) {
          const int16_t* numbers = &rows.numbers[(size_t)(row + r) * rows.stride + g * GROUP + k];
          for (int p = 0; p < P; p++) whole[r][p] = dot(dot(whole[r][p], first[p], numbers), second[p], numbers + 2);
        }
      }
      for (int p = 0; p < P; p++) {
        V scale = load(scales + ((size_t)p * groups + g) * LANES);
        for (int r = 0; r < R; r++)
          sums[r][p] = fma(__builtin_convertvector(whole[r][p], V), scale * rows.scale[(size_t)(row + r) * rows.stride / GROUP + g], sums[r][p]);
      }
    }
  }
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) {
      if (m.bias) sums[r][p] += load(m.bias + (panel + p) * LANES);
      put(row + r, panel + p, sums[r][p]);
    }
}

template <Kind K, int R, int P, class Put>
inline int tiles(const Matrix& m, Range panels, const Activations& rows, int row, int count, Put&& put) {
  for (; row + R <= count; row += R) {
    int panel = panels.begin;
    for (; panel + P <= panels.end; panel += P) tile<K, R, P>(m, panel, rows, row, put);
    for (; panel < panels.end; panel++) tile<K, R, 1>(m, panel, rows, row, put);
  }
  return row;
}

// Some panels of a matrix times all rows. Few rows take more panels at once, so that sums do not wait for each other.
template <Kind K, class Put>
void multiply(const Matrix& m, Range panels, const Activations& rows, int count, Put&& put) {
  constexpr int TOGETHER = 8;  // panels that stay in the cache while all rows pass
  for (int first = panels.begin; first < panels.end; first += TOGETHER) {
    Range some{first, std::min(first + TOGETHER, panels.end)};
    int row = tiles<K, TILE, TILE == 8 ? 1 : 2>(m, some, rows, 0, count, put);
    row = tiles<K, TILE / 2, 2>(m, some, rows, row, count, put);
    if (TILE == 8) row = tiles<K, 2, 4>(m, some, rows, row, count, put);
    tiles<K, 1, 4>(m, some, rows, row, count, put);
  }
}

inline void store_lanes(float* to, V v, int count) {
  if (count >= LANES) return store(to, v);
  for (int i = 0; i < count; i++) to[i] = v[i];
}

// One row of logits becomes a token: as `sampling.sample`, by a threshold below which no token is taken.
// `draw`: a number of [0, 1).
int32_t sample(const float* logits, int count, float temperature, int top_k, float top_p, float min_p, double draw,
               std::vector<float>& weights, std::vector<float>& sorted, std::vector<double>& sums) {
  int best = int(std::max_element(logits, logits + count) - logits);
  if (temperature == 0) return best;
  weights.resize(count + LANES);
  float max_logit = logits[best], inverse = 1 / temperature;
  int i = 0;
  for (; i + LANES <= count; i += LANES) store(&weights[i], exponential((load(logits + i) - max_logit) * inverse));
  for (; i < count; i++) weights[i] = exponential(broadcast((logits[i] - max_logit) * inverse))[0];
  for (i = 0; i < count; i++)
    if (!(logits[i] > -INFINITY)) weights[i] = 0;  // ruled out, or no number
  float threshold = min_p;
  if (top_k > 0 && top_k < count) {
    sorted.assign(weights.begin(), weights.begin() + count);
    std::nth_element(sorted.begin(), sorted.begin() + top_k - 1, sorted.end(), std::greater<float>());
    threshold = std::max(threshold, sorted[top_k - 1]);
  }
  if (top_p < 1) {
    float kth_weight = top_k > 0 && top_k < count ? sorted[top_k - 1] : 0;
    sorted.clear();
    double total = 0;
    for (i = 0; i < count; i++)
      if (weights[i] >= kth_weight && weights[i] > 0) sorted.push_back(weights[i]), total += weights[i];
    double sum = 0;
    size_t done = 0;
    for (size_t chunk = 64; done < sorted.size() && sum < top_p * total; chunk *= 4) {
      size_t end = std::min(chunk, sorted.size());
      std::partial_sort(sorted.begin() + done, sorted.begin() + end, sorted.end(), std::greater<float>());
      while (done < end && sum < top_p * total) sum += sorted[done++];
    }
    threshold = std::max(threshold, done ? sorted[done - 1] : weights[best]);  // top_p so small that it became zero
  }
  // Sums of some weights at once, so that additions do not wait for each other; only the one in which the draw falls
  // is looked through.
  constexpr int SOME = 64;
  const int parts = (count + SOME - 1) / SOME;
  double total = 0;
  sums.resize(parts);
  for (int part = 0; part < parts; part++) {
    double lanes[8] = {};
    const float* w = &weights[(size_t)part * SOME];
    const int end = std::min(SOME, count - part * SOME);
    for (i = 0; i + 8 <= end; i += 8)
      for (int j = 0; j < 8; j++) lanes[j] += w[i + j] >= threshold ? w[i + j] : 0;
    for (; i < end; i++) lanes[i % 8] += w[i] >= threshold ? w[i] : 0;
    sums[part] = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
    total += sums[part];
  }
  double sum = 0, target = draw * total;
  int last = best;
  for (int part = 0; part < parts; part++) {
    if (sum + sums[part] <= target && part + 1 < parts) {
      sum += sums[part];
      continue;
    }
    double within = sum;
    for (i = part * SOME; i < std::min(count, (part + 1) * SOME); i++)
      if (weights[i] >= threshold && weights[i] > 0) {
        within += weights[i];
        last = i;
        if (within > target) return i;
      }
    sum += sums[part];  // by a rounding the draw is behind it
  }
  return last;
}

// The natural logarithm of the model's probability of a token.
float log_probability(const float* logits, int count, int token) {
  V most_V = broadcast(-INFINITY);
  int i = 0;
  for (; i + LANES <= count; i += LANES) most_V = maximum(most_V, load(logits + i));
  float most = max_lane(most_V);
  for (; i < count; i++) most = std::max(most, logits[i]);
  double total = 0;
  for (i = 0; i + LANES <= count;) {
    V sum = {};
    for (const int end = i + 8 * LANES; i < end && i + LANES <= count; i += LANES) sum += exponential(load(logits + i) - most);
    total += sum_lanes(sum);
  }
  for (; i < count; i++) total += exponential(broadcast(logits[i] - most))[0];
  return float(logits[token] - most - std::log(total));
}

// A number of [0, 1) that depends on nothing but its arguments: `sampling.uniform`.
double uniform(uint64_t seed, uint64_t row, uint64_t position) {
  uint64_t mixed = 0;
  for (uint64_t part : {seed, row, position}) {
    mixed += part + 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBu;
    mixed ^= mixed >> 31;
  }
  return (mixed >> 11) * 0x1p-53;
}

struct Call {
  int rows;
  const int32_t *tokens, *positions, *slots;
  const int32_t* embedded_rows;  // rows that read one of `embeddings` instead of their token's
  const float* embeddings;       // [embedded][D]
  int embedded;
  int logits_count;
  const int32_t* logits_indices;  // rows whose logits or states are computed
  float *logits, *states;         // either may be null
  bool prefills;                  // whether a sequence has several rows
};

class Model {
 public:
  const Config c;
  const Weights w;
  Team team;
  Model(const Config& config, const Weights& weights)
      : c(config), w(weights), team(config.threads), layers(weights.layers, weights.layers + config.layers),
        scratch(config.threads) {
    int widest = std::max({c.width, c.heads * c.head_dim, c.mlp});
    for (auto& one : scratch) {
      one.rows.reserve(FEW, widest);
      one.scores.resize((size_t)c.table_width * BLOCK + LANES);
      one.norm.resize(widest + GROUP);
    }
  }
  void forward(const Call& call) {
    if (call.rows > capacity) reserve(call.rows);
    int power = 0;
    while (call.rows >> (power + 1) && power < SIZES - 1) power++;
    ThreadChoice& choice = choices[power];
    auto start = std::chrono::steady_clock::now();
    team.run(team.max_size() > 1 && choice.use_all() ? team.max_size() : 1, [&](int t) {
      if (c.kind == FLOAT) run_layers<FLOAT, float>(call, t);
      if (c.kind == BFLOAT) run_layers<BFLOAT, uint16_t>(call, t);
      if (c.kind == INT8) run_layers<INT8, uint16_t>(call, t);
    });
    choice.record(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::vector<float>& weights(int t) { return scratch[t].weights; }
  std::vector<float>& sorted(int t) { return scratch[t].sorted; }
  std::vector<double>& sums(int t) { return scratch[t].sums; }

 private:
  static constexpr int SIZES = 10;  // of calls, by powers of two
  ThreadChoice choices[SIZES];
  static constexpr int FEW = 4;  // rows that each thread prepares for itself, which is quicker than a barrier
  struct Scratch {  // of one thread
    Activations rows;
    std::vector<float> scores, norm, weights, sorted;
    std::vector<double> sums;
  };
  std::vector<Layer> layers;
  std::vector<Scratch> scratch;
  Activations shared;
  std::vector<float> x, qkv, attended, inner;
  int capacity = 0;

  int qkv_size() const { return (c.heads + 2 * c.kv_heads) * c.head_dim; }
  void reserve(int rows) {
    capacity = rows;
    x.assign((size_t)rows * c.width + GROUP, 0), qkv.assign((size_t)rows * qkv_size() + GROUP, 0);
    attended.assign((size_t)rows * c.heads * c.head_dim + GROUP, 0), inner.assign((size_t)rows * c.mlp + GROUP, 0);
    shared.reserve(rows, std::max({c.width, c.heads * c.head_dim, c.mlp}));
  }

  void normalize(const float* from, const float* weight, const float* bias, int count, float* to, bool centre) const {
    float mean = 0;
    V sum = {};
    if (centre) {
      for (int i = 0; i < count; i += LANES) sum += load(from + i);
      mean = sum_lanes(sum) / count, sum = V{};
    }
    for (int i = 0; i < count; i += LANES) {
      V v = load(from + i) - mean;
      sum = fma(v, v, sum);
    }
    float factor = 1 / std::sqrt(sum_lanes(sum) / count + c.eps);
    for (int i = 0; i < count; i += LANES) {
      V v = (load(from + i) - mean) * factor;
      store(to + i, bias ? fma(v, load(weight + i), load(bias + i)) : v * load(weight + i));
    }
  }

  // Rows of a buffer, normalised if there is a weight, in the kind of numbers that a matrix is multiplied with.
  template <Kind K>
  const Activations& prepare(const float* from, int columns, int count, const float* weight, const float* bias, int t, const int32_t* index = nullptr, float* keep = nullptr) {
    bool few = count <= FEW;
    Activations& rows = few ? scratch[t].rows : shared;
    Range mine = few ? Range{0, count} : partition(count, t, team.size());
    for (int r = mine.begin; r < mine.end; r++) {
      const float* row = from + (size_t)(index ? index[r] : r) * columns;
      if (weight) {
        normalize(row, weight, bias, columns, scratch[t].norm.data(), c.layer_norm);
        row = scratch[t].norm.data();
        if (keep && (!few || t == 0)) memcpy(keep + (size_t)r * columns, row, sizeof(float) * columns);
      }
      convert<K>(rows, r, row, columns);
    }
    if (!few) team.barrier();
    return rows;
  }

  template <Kind K, class T>
  void run_layers(const Call& call, int t) {
    const int n = call.rows, D = c.width, threads = team.size();
    Range mine = partition(n, t, threads);
    auto read = [&](int r, const auto* embedding) {
      for (int i = 0; i < D; i += LANES) {
        V v = load(embedding + i);
        store(&x[(size_t)r * D + i], w.positions ? v + load(w.positions + (size_t)call.positions[r] * D + i) : v);
      }
    };
    for (int r = mine.begin; r < mine.end; r++) read(r, (const T*)w.embedding + (size_t)call.tokens[r] * D);
    for (int i = 0; i < call.embedded; i++) {
      const int r = call.embedded_rows[i];
      if (mine.begin <= r && r < mine.end) read(r, call.embeddings + (size_t)i * D);
    }
    team.barrier();
    auto panels = [&](const Matrix& m, int unit) {
      Range part = partition((m.outputs + LANES * unit - 1) / (LANES * unit), t, threads);
      return Range{part.begin * unit, part.end * unit};
    };
    for (int l = 0; l < c.layers; l++) {
      const Layer& layer = layers[l];
      const Activations* rows = &prepare<K>(x.data(), D, n, layer.norm1, layer.norm1_bias, t);
      multiply<K>(layer.qkv, panels(layer.qkv, 1), *rows, n, [&](int r, int p, V v) { store(&qkv[(size_t)r * qkv_size() + p * LANES], v); });
      team.barrier();
      attention<T>(call, layer, l, t);
      team.barrier();
      rows = &prepare<K>(attended.data(), c.heads * c.head_dim, n, nullptr, nullptr, t);
      auto add = [&](int r, int p, V v) {
        float* to = &x[(size_t)r * D + p * LANES];
        store(to, load(to) + v);
      };
      multiply<K>(layer.out, panels(layer.out, 1), *rows, n, add);
      team.barrier();
      rows = &prepare<K>(x.data(), D, n, layer.norm2, layer.norm2_bias, t);
      if (c.gated)
        multiply<K>(layer.up, panels(layer.up, 2), *rows, n, [&](int r, int p, V v) {
          float* to = &inner[(size_t)r * c.mlp + p / 2 * LANES];  // first the gate, then the product
          store(to, p % 2 ? load(to) * v : v * sigmoid(v));
        });
      else
        multiply<K>(layer.up, panels(layer.up, 1), *rows, n, [&](int r, int p, V v) {  // GELU's approximation by tanh
          store(&inner[(size_t)r * c.mlp + p * LANES], v * sigmoid(1.59576912f * fma(0.044715f * v * v, v, v)));
        });
      team.barrier();
      rows = &prepare<K>(inner.data(), c.mlp, n, nullptr, nullptr, t);
      multiply<K>(layer.down, panels(layer.down, 1), *rows, n, add);
      team.barrier();
    }
    if (!call.logits_count) return;
    const Activations& rows = prepare<K>(x.data(), D, call.logits_count, w.norm, w.norm_bias, t, call.logits_indices, call.states);
    if (call.logits)
      multiply<K>(w.head, panels(w.head, 1), rows, call.logits_count, [&](int r, int p, V v) {
        store_lanes(call.logits + (size_t)r * c.vocab + p * LANES, v, c.vocab - p * LANES);
      });
  }

  template <class T>
  T* block(void* cache, int layer, int index, int head) const {
    return (T*)cache + (((size_t)layer * c.blocks + index) * c.kv_heads + head) * c.head_dim * BLOCK;
  }

  // Blocks lie far apart: the next one is fetched while one is computed.
  template <class T>
  void prefetch(const T* next) const {
    for (int i = 0; i < c.head_dim * BLOCK; i += 64 / sizeof(T)) __builtin_prefetch(next + i);
  }

  // Norm, rotary position and scale of one query or key, in place.
  void norm_and_rope(float* head, int position, const float* weight, float scale) const {
    const int E = c.head_dim;
    if (weight) normalize(head, weight, nullptr, E, head, false);
    if (c.rotary) {
      const float *cos = w.cos + (size_t)position * E, *sin = w.sin + (size_t)position * E + E / 2;
      int i = 0;
      for (; i + LANES <= E / 2; i += LANES) {
        const V a = load(head + i), b = load(head + i + E / 2), c = load(cos + i), s = load(sin + i);
        store(head + i, fma(a, c, -(b * s)));
        store(head + i + E / 2, fma(b, c, a * s));
      }
      for (; i < E / 2; i++) {
        const float a = head[i], b = head[i + E / 2];
        head[i] = fma(a, cos[i], -(b * sin[i]));
        head[i + E / 2] = fma(b, cos[i], a * sin[i]);
      }
    }
    for (int i = 0; i < E; i += LANES) store(head + i, load(head + i) * scale);
  }

  // Key and value of one row and head go to the cache.
  template <class T>
  void store_kv(const Call& call, const Layer& layer, int l, int r, int head) {
    const int E = c.head_dim, position = call.positions[r], offset = position % BLOCK;
    const int32_t index = w.block_tables[(size_t)call.slots[r] * c.table_width + position / BLOCK];
    float* key = &qkv[(size_t)r * qkv_size() + (c.heads + head) * E];
    norm_and_rope(key, position, layer.k_norm, 1);
    const float* value = key + c.kv_heads * E;
    T *keys = block<T>(w.keys, l, index, head), *values = block<T>(w.values, l, index, head) + offset * E;
    for (int e = 0; e < E; e += LANES) {
      T column[LANES];
      store(column, load(key + e));
      for (int i = 0; i < LANES; i++) keys[(e + i) * BLOCK + offset] = column[i];
      store(values + e, load(value + e));
    }
  }

  template <class T>
  void attention(const Call& call, const Layer& layer, int l, int t) {
    Range mine = partition(call.rows * c.kv_heads, t, team.size());
    if (call.prefills) {  // a row may attend to keys that another thread computes
      for (int task = mine.begin; task < mine.end; task++) store_kv<T>(call, layer, l, task / c.kv_heads, task % c.kv_heads);
      team.barrier();
    }
    for (int task = mine.begin; task < mine.end; task++) {
      int r = task / c.kv_heads, head = task % c.kv_heads, each = c.heads / c.kv_heads;
      if (!call.prefills) store_kv<T>(call, layer, l, r, head);
      for (int h = head * each; h < (head + 1) * each; h++) attend<T>(call, layer, l, t, r, h, head);
    }
  }

  // One query attends to all keys up to its own.
  template <class T>
  void attend(const Call& call, const Layer& layer, int l, int t, int r, int h, int head) {
    const int E = c.head_dim, position = call.positions[r], blocks = position / BLOCK + 1;
    const int32_t* table = w.block_tables + (size_t)call.slots[r] * c.table_width;
    float* q = &qkv[(size_t)r * qkv_size() + h * E];
    norm_and_rope(q, position, layer.q_norm, 1 / std::sqrt((float)E));
    float* scores = scratch[t].scores.data();
    V most = broadcast(-INFINITY);
    for (int b = 0; b < blocks; b++) {
      const T* keys = block<T>(w.keys, l, table[b], head);
      if (b + 1 < blocks) prefetch(block<T>(w.keys, l, table[b + 1], head));
      for (int part = 0; part < BLOCK; part += LANES) {
        V sums[4] = {};
        for (int e = 0; e < E; e += 4)
          for (int i = 0; i < 4; i++) sums[i] = fma(load(keys + (e + i) * BLOCK + part), q[e + i], sums[i]);
        const V sum = mask_after((sums[0] + sums[1]) + (sums[2] + sums[3]), position - b * BLOCK - part, -INFINITY);
        most = maximum(most, sum);
        store(scores + b * BLOCK + part, sum);
      }
    }
    const float top = max_lane(most);
    V all = {};
    for (int i = 0; i < blocks * BLOCK; i += LANES) {
      const V p = mask_after(exponential(load(scores + i) - top), position - i, 0);
      all += p;
      store(scores + i, p);
    }
    const float inverse = 1 / sum_lanes(all);
    float* to = &attended[(size_t)r * c.heads * E + h * E];
    int e = 0;
    for (; e + 4 * LANES <= E; e += 4 * LANES) weighted_values<T, 4>(table, position, l, head, scores, inverse, e, to);
    for (; e + 2 * LANES <= E; e += 2 * LANES) weighted_values<T, 2>(table, position, l, head, scores, inverse, e, to);
    for (; e < E; e += LANES) weighted_values<T, 1>(table, position, l, head, scores, inverse, e, to);
  }

  // The sum of the values, each times its score, in J vectors from dimension e on.
  template <class T, int J>
  void weighted_values(const int32_t* table, int position, int l, int head, const float* scores, float inverse, int e, float* to) const {
    V sums[J] = {};
    for (int b = 0; b <= position / BLOCK; b++) {
      const T* values = block<T>(w.values, l, table[b], head) + e;
      if (b < position / BLOCK) prefetch(block<T>(w.values, l, table[b + 1], head));
      const int count = std::min(BLOCK, position + 1 - b * BLOCK);
      for (int i = 0; i < count; i++)
        for (int j = 0; j < J; j++) sums[j] = fma(load(values + i * c.head_dim + j * LANES), scores[b * BLOCK + i], sums[j]);
    }
    for (int j = 0; j < J; j++) store(to + e + j * LANES, sums[j] * inverse);
  }
};

}  // namespace

extern "C" {

int crawltalk_lanes() { return LANES; }
void* crawltalk_make(const Config* config, const Weights* weights) { return new Model(*config, *weights); }
void crawltalk_free(void* model) { delete (Model*)model; }

void crawltalk_forward(void* model, int rows, const int32_t* tokens, const int32_t* positions, const int32_t* slots,
                       const int32_t* embedded_rows, const float* embeddings, int embedded, int logits_count,
                       const int32_t* logits_indices, float* logits, float* states) {
  bool prefills = false;
  for (int r = 1; r < rows; r++) prefills |= slots[r] == slots[r - 1];
  ((Model*)model)->forward({rows, tokens, positions, slots, embedded_rows, embeddings, embedded, logits_count,
                            logits_indices, logits, states, prefills});
}

void crawltalk_sample(void* model, int rows, const float* logits, const float* temperatures, const int32_t* top_k,
                      const float* top_p, const float* min_p, const double* draws, int32_t* tokens) {
  Model& m = *(Model*)model;
  const int threads = m.team.size();  // as in the forward pass before
  m.team.run(rows > 1 ? threads : 1, [&](int t) {
    Range mine = partition(rows, t, m.team.size());
    for (int r = mine.begin; r < mine.end; r++)
      tokens[r] = sample(logits + (size_t)r * m.c.vocab, m.c.vocab, temperatures[r], top_k[r], top_p[r], min_p[r], draws[r],
                         m.weights(t), m.sorted(t), m.sums(t));
  });
}

void crawltalk_log_probabilities(void* model, int rows, const float* logits, const int32_t* tokens, float* to) {
  Model& m = *(Model*)model;
  const int threads = m.team.size();
  m.team.run(rows > 1 ? threads : 1, [&](int t) {
    Range mine = partition(rows, t, m.team.size());
    for (int r = mine.begin; r < mine.end; r++) to[r] = log_probability(logits + (size_t)r * m.c.vocab, m.c.vocab, tokens[r]);
  });
}

// Steps of forward and sample without a return in between. A row leaves with a stop token or at its limit of tokens.
// `drawn`: tokens that each row has drawn before; `logits`: room for those of a step; `to` and `log_probs` (or null):
// [rows][steps]; `counts`: the tokens of each row, a stop token included.
void crawltalk_decode(void* model, int rows, int steps, const int32_t* tokens, const int32_t* positions, const int32_t* slots,
                      const float* temperatures, const int32_t* top_k, const float* top_p, const float* min_p,
                      const uint64_t* seeds, const uint64_t* numbers, const int32_t* drawn, const int32_t* limits,
                      const int32_t* stop_ids, int stops, float* logits, int32_t* to, float* log_probs, int32_t* counts) {
  Model& m = *(Model*)model;
  const size_t vocab = m.c.vocab;
  std::vector<int32_t> going(rows), next(tokens, tokens + rows), now_tokens(rows), now_positions(rows), now_slots(rows), all(rows);
  for (int r = 0; r < rows; r++) going[r] = all[r] = r, counts[r] = 0;
  while (!going.empty()) {
    const int n = int(going.size());
    for (int i = 0; i < n; i++) {
      const int r = going[i];
      now_tokens[i] = next[r], now_positions[i] = positions[r] + counts[r], now_slots[i] = slots[r];
    }
    m.forward({n, now_tokens.data(), now_positions.data(), now_slots.data(), nullptr, nullptr, 0, n, all.data(), logits, nullptr, false});
    const int threads = m.team.size();
    m.team.run(n > 1 ? threads : 1, [&](int t) {
      Range mine = partition(n, t, m.team.size());
      for (int i = mine.begin; i < mine.end; i++) {
        const int r = going[i], count = counts[r];
        const float* row = logits + i * vocab;
        const double draw = temperatures[r] == 0 ? 0 : uniform(seeds[r], numbers[r], (uint64_t)drawn[r] + count);
        next[r] = sample(row, m.c.vocab, temperatures[r], top_k[r], top_p[r], min_p[r], draw, m.weights(t), m.sorted(t), m.sums(t));
        to[(size_t)r * steps + count] = next[r];
        if (log_probs) log_probs[(size_t)r * steps + count] = log_probability(row, m.c.vocab, next[r]);
        counts[r]++;
      }
    });
    auto ends = [&](int r) { return counts[r] >= limits[r] || std::find(stop_ids, stop_ids + stops, next[r]) != stop_ids + stops; };
    going.erase(std::remove_if(going.begin(), going.end(), ends), going.end());
  }
}

}  // extern "C"
