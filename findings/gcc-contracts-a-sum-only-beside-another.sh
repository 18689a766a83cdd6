#!/usr/bin/env bash
# GCC 12.2 (Debian 12: cpp-12 12.2.0-14+deb12u1), -O3 -ffp-contract=fast, which is its default: whether `s += w * x` becomes one fused
# multiply-add depends on what else stands in the loop, if the target is Zen 2 or Zen 3.
#
#   -march=x86-64-v3   a lone sum: fused             two sums in one loop: both fused
#   -march=znver3      a lone sum: product and sum   two sums in one loop: both fused
#
# For Zen, GCC breaks up a chain of dependent FMAs where the chain stands alone (tuning flags avoid_fma_chains and avoid_fma256_chains;
# -mtune-ctrl=^avoid_fma_chains,^avoid_fma256_chains fuses the lone sum, too). A fused product is rounded once, the other twice. So a
# kernel with one row and one with two rows in registers, made from the same template, give different last bits for the same row, on
# these processors and no others.
# The way out: -ffp-contract=off, and fused products that are written out (intrinsics, __builtin_fmaf).
#
# Needs: a Debian 12 machine (amd64) with apt. Downloads the compiler proper into a temporary folder; installs nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download cpp-12=12.2.0-14+deb12u1 libisl23=0.25-1.1 libmpc3=1.3.1-1 libmpfr6=4.2.0-1 libgmp10=2:6.2.1+dfsg1-1.1 > download.log 2>&1 \
  || { cat download.log; echo "FAILED: these packages cannot be had here (apt-get update first)"; exit 1; }
for package in *.deb; do dpkg -x "$package" root; done

cat > sums.c <<'C'
typedef float V __attribute__((vector_size(32)));
V lone(const V *w, const float *x, int n) {
  V s = {};
  for (int k = 0; k < n; k++) s += w[k] * x[k];
  return s;
}
void both(const V *w, const float *x, const float *y, int n, V *out) {
  V s = {}, t = {};
  for (int k = 0; k < n; k++) {
    s += w[k] * x[k];
    t += w[k] * y[k];
  }
  out[0] = s;
  out[1] = t;
}
C

seen=""
for target in x86-64-v3 znver3; do
  LD_LIBRARY_PATH="$folder/root/usr/lib/x86_64-linux-gnu" "$folder/root/usr/lib/gcc/x86_64-linux-gnu/12/cc1" -quiet -O3 \
    -march=$target -ffp-contract=fast -o $target.s sums.c
  for function in lone both; do
    body=$(sed -n "/^$function:/,/\.size\t$function/p" $target.s)
    fused=$(grep -c vfmadd <<< "$body" || true)
    products=$(grep -c 'vmulps' <<< "$body" || true)
    seen+="$target $function: fused $fused, separate $products"$'\n'
  done
done
expected="x86-64-v3 lone: fused 1, separate 0
x86-64-v3 both: fused 2, separate 0
znver3 lone: fused 0, separate 1
znver3 both: fused 2, separate 0
"
printf '%s' "$seen"
[ "$seen" = "$expected" ] || { printf 'CHANGED: expected\n%s' "$expected"; exit 1; }
echo "as described"
