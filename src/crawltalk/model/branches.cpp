// The forward pass of many short texts that continue one text, fp32, without gradients: from embeddings to the states
// behind the last layer. Keys and values of the common text are read once for all rows; the last layer computes only the
// positions that are asked for. A row is computed by itself, and each sum has one order, so it does not depend on others.
//
// Letters: B rows, T positions of each, P positions of the common text, D width, H query heads, K key/value heads,
// E head size, F inner size of the MLP. A matrix [in, out] is packed in strips of 32 columns: [out / 32][in][32].

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#ifdef __clang__
#pragma clang fp contract(fast)
#else
#pragma GCC optimize("fp-contract=fast")
#endif

namespace {

constexpr int LANES = 16, STRIP = 2 * LANES, ROWS = 6, QUERIES = 4;
constexpr int POSITIONS = 64;  // computed together: so many that weights are read seldom, so few that caches hold them
typedef float Lanes __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t Words __attribute__((vector_size(LANES * 4), aligned(4)));

struct Layer {
  const float *qkv, *out, *gate_up, *down;  // packed; the weights of norms are part of them
  const float *q_norm, *k_norm;  // [E] each; null: none
  const float *keys, *values;  // of the common text, [K, stride, E]
};

struct Call {
  const Layer* layers;
  const float *x, *cos, *sin;  // [B, T, D]; [T, E], the first half of the sines negated
  float* y;  // [B, last, D]
  float eps;
  int32_t count, batch, length, common, stride, width, heads, kv_heads, size, inner, last, threads;
};

inline Lanes load(const float* p) {
  Lanes x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
inline void store(float* p, Lanes x) { std::memcpy(p, &x, sizeof x); }

// e^x for -87 <= x <= 87: 2^n times 2^f, -0.5 <= f <= 0.5, by its Taylor series up to 3e-7.
inline Lanes exponential(Lanes x) {
  x = x > 87.f ? Lanes{} + 87.f : x;
  x = x > -87.f ? x : Lanes{} - 87.f;
  const float shift = 12582912.f;  // 1.5 x 2^23: adding it rounds to an integer
  x *= 1.44269504f;
  const Lanes n = (x + shift) - shift, f = x - n;
  Lanes p = f * 1.54035304e-4f + 1.33335581e-3f;
  for (float next : {9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.f}) p = p * f + next;
  const Words power = (__builtin_convertvector(n, Words) + 127) << 23;
  Lanes scale;
  std::memcpy(&scale, &power, sizeof scale);
  return p * scale;
}

// C[rows][out] (+)= A[rows][in] x B; A and C have ROWS rows more than they need.
void product(const float* a, const float* b, float* c, int rows, int in, int out, bool add) {
  for (int column = 0; column < out; column += STRIP, b += (size_t)in * STRIP)
    for (int r = 0; r < rows; r += ROWS) {
      const float* from = a + (size_t)r * in;
      float* to = c + (size_t)r * out + column;
      Lanes sums[ROWS][2] = {};
      for (int k = 0; k < in; k++) {
        const Lanes left = load(b + (size_t)k * STRIP), right = load(b + (size_t)k * STRIP + LANES);
        for (int i = 0; i < ROWS; i++) {
          const float one = from[(size_t)i * in + k];
          sums[i][0] += one * left, sums[i][1] += one * right;
        }
      }
      for (int i = 0; i < ROWS; i++, to += out)
        for (int n = 0; n < 2; n++) store(to + n * LANES, add ? load(to + n * LANES) + sums[i][n] : sums[i][n]);
    }
}

// Rows divided by their length.
void normalize(const float* x, float* y, int rows, int width, float eps) {
  for (; rows--; x += width, y += width) {
    Lanes sums = {};
    for (int i = 0; i < width; i += LANES) sums += load(x + i) * load(x + i);
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += sums[i];
    const float scale = 1 / std::sqrt(sum / width + eps);
    for (int i = 0; i < width; i += LANES) store(y + i, load(x + i) * scale);
  }
}

// silu(gate) * up, [rows, 2 F] to [rows, F].
void gate(const float* gate_up, float* y, int rows, int inner) {
  for (; rows--; gate_up += 2 * inner, y += inner)
    for (int i = 0; i < inner; i += LANES) {
      const Lanes x = load(gate_up + i);
      store(y + i, x / (exponential(-x) + 1.f) * load(gate_up + inner + i));
    }
}

// A head normalised and turned by its position's angle; its numbers lie `step` apart in `to`.
inline void rotated(const Call& c, const float* x, int t, const float* weight, float* to, size_t step) {
  const int E = c.size;
  const float *cos = c.cos + (size_t)t * E, *sin = c.sin + (size_t)t * E;
  float scaled[256], sum = 0, scale = 1;
  if (weight) {
    for (int e = 0; e < E; e++) sum += x[e] * x[e];
    scale = 1 / std::sqrt(sum / E + c.eps);
  }
  for (int e = 0; e < E; e++) scaled[e] = weight ? x[e] * scale * weight[e] : x[e];
  for (int e = 0; e < E; e++) to[e * step] = scaled[e] * cos[e] + scaled[e < E / 2 ? e + E / 2 : e - E / 2] * sin[e];
}

struct Buffers {
  std::vector<float> x, normal, qkv, attended, gate_up, gated, keys, values, scores, queries;
};

// What the last `last` positions of some rows see, [rows, last, H x E], from [rows, T, H + 2 K, E].
void attention(const Call& c, const Layer& layer, Buffers& buffers, int rows, int last) {
  const int E = c.size, all = c.heads + 2 * c.kv_heads, each = c.heads / c.kv_heads;
  const int width = (c.common + c.length + QUERIES + LANES - 1) / LANES * LANES;
  const float factor = 1 / std::sqrt((float)E);
  float *keys = buffers.keys.data(), *values = buffers.values.data(), *queries = buffers.queries.data();
  for (int g = 0; g < c.kv_heads; g++) {
    const float *k = layer.keys + (size_t)g * c.stride * E, *v = layer.values + (size_t)g * c.stride * E;
    for (int s = 0; s < c.common; s++)
      for (int e = 0; e < E; e++) keys[(size_t)e * width + s] = k[(size_t)s * E + e];
    std::memcpy(values, v, (size_t)c.common * E * sizeof(float));
    for (int b = 0; b < rows; b++) {
      const float* row = buffers.qkv.data() + (size_t)b * c.length * all * E;
      for (int t = 0; t < c.length; t++) {
        const float* x = row + ((size_t)t * all + c.heads + g) * E;
        rotated(c, x, t, layer.k_norm, keys + c.common + t, width);
        std::memcpy(values + (size_t)(c.common + t) * E, x + (size_t)c.kv_heads * E, E * sizeof(float));
      }
      for (int h = g * each; h < (g + 1) * each; h++)
        for (int first = c.length - last; first < c.length; first += QUERIES) {
          const int count = std::min(QUERIES, c.length - first);
          const int padded = (c.common + first + count + LANES - 1) / LANES * LANES;
          for (int q = 0; q < QUERIES; q++) {
            const int t = first + std::min(q, count - 1);
            rotated(c, row + ((size_t)t * all + h) * E, t, layer.q_norm, queries + (size_t)q * E, 1);
          }
          for (int s = 0; s < padded; s += LANES) {
            Lanes sums[QUERIES] = {};
            for (int e = 0; e < E; e++) {
              const Lanes column = load(keys + (size_t)e * width + s);
              for (int q = 0; q < QUERIES; q++) sums[q] += queries[q * E + e] * column;
            }
            for (int q = 0; q < QUERIES; q++) store(&buffers.scores[(size_t)q * width + s], sums[q] * factor);
          }
          for (int q = 0; q < count; q++) {
            float* p = &buffers.scores[(size_t)q * width];
            const int stop = c.common + first + q + 1;
            const float top = *std::max_element(p, p + stop);
            for (int s = 0; s < padded; s += LANES) store(p + s, exponential(load(p + s) - top));
            std::fill(p + stop, p + padded, 0.f);
            Lanes sums = {};
            for (int s = 0; s < padded; s += LANES) sums += load(p + s);
            float total = 0;
            for (int i = 0; i < LANES; i++) total += sums[i];
            float* to = &buffers.attended[(((size_t)b * last + first - (c.length - last) + q) * c.heads + h) * E];
            for (int e = 0; e < E; e += LANES) {
              Lanes even = {}, odd = {};
              int s = 0;
              for (; s + 1 < stop; s += 2) {
                even += p[s] * load(values + (size_t)s * E + e);
                odd += p[s + 1] * load(values + (size_t)(s + 1) * E + e);
              }
              if (s < stop) even += p[s] * load(values + (size_t)s * E + e);
              store(to + e, (even + odd) / total);
            }
          }
        }
    }
  }
}

// Rows `begin` to `end`.
void forward(const Call& c, int begin, int end) {
  const int D = c.width, E = c.size, F = c.inner, all = (c.heads + 2 * c.kv_heads) * E;
  const int group = std::max(1, POSITIONS / c.length), most = group * c.length + ROWS;
  const int width = (c.common + c.length + QUERIES + LANES - 1) / LANES * LANES;
  Buffers f;
  f.x.resize((size_t)most * D), f.normal.resize((size_t)most * D), f.qkv.resize((size_t)most * all);
  f.attended.resize((size_t)most * c.heads * E), f.gate_up.resize((size_t)most * 2 * F), f.gated.resize((size_t)most * F);
  f.keys.resize((size_t)E * width), f.values.resize((size_t)width * E);
  f.scores.resize((size_t)QUERIES * width), f.queries.resize((size_t)QUERIES * E);
  for (int b = begin; b < end; b += group) {
    const int rows = std::min(group, end - b);
    std::copy_n(c.x + (size_t)b * c.length * D, (size_t)rows * c.length * D, f.x.data());
    int positions = rows * c.length;
    for (int l = 0; l < c.count; l++) {
      const Layer& layer = c.layers[l];
      const int last = l == c.count - 1 ? c.last : c.length;
      normalize(f.x.data(), f.normal.data(), positions, D, c.eps);
      product(f.normal.data(), layer.qkv, f.qkv.data(), positions, D, all, false);
      attention(c, layer, f, rows, last);
      if (last < c.length)
        for (int r = 0; r < rows; r++)
          std::memmove(&f.x[(size_t)r * last * D], &f.x[((size_t)(r + 1) * c.length - last) * D], (size_t)last * D * sizeof(float));
      positions = rows * last;
      product(f.attended.data(), layer.out, f.x.data(), positions, c.heads * E, D, true);
      normalize(f.x.data(), f.normal.data(), positions, D, c.eps);
      product(f.normal.data(), layer.gate_up, f.gate_up.data(), positions, D, 2 * F, false);
      gate(f.gate_up.data(), f.gated.data(), positions, F);
      product(f.gated.data(), layer.down, f.x.data(), positions, F, D, true);
    }
    std::copy_n(f.x.data(), (size_t)positions * D, c.y + (size_t)b * c.last * D);
  }
}

}  // namespace

extern "C" void crawltalk_branches(const Call* call) {
  const Call& c = *call;
  const int threads = std::max(1, std::min(c.threads, c.batch));
  std::vector<std::thread> others;
  for (int i = 1; i < threads; i++)
    others.emplace_back([&c, i, threads] { forward(c, c.batch * i / threads, c.batch * (i + 1) / threads); });
  forward(c, 0, c.batch / threads);
  for (std::thread& other : others) other.join();
}
