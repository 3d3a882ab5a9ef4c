# Third parties, each wrapped once: the rest of the project names only boss::<package>.

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(absl REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(PNG REQUIRED)
find_package(ZLIB REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)

function(boss_wrap name)
  add_library(boss_${name} INTERFACE)
  add_library(boss::${name} ALIAS boss_${name})
  target_link_libraries(boss_${name} INTERFACE ${ARGN})
endfunction()

boss_wrap(absl
          absl::base absl::core_headers absl::flat_hash_map absl::flat_hash_set absl::function_ref absl::random_random absl::span
          absl::status absl::statusor absl::str_format absl::strings absl::synchronization absl::time absl::cleanup)
boss_wrap(protobuf protobuf::libprotobuf)
boss_wrap(grpc gRPC::grpc++ gRPC::grpc++_reflection protobuf::libprotobuf)
boss_wrap(png PNG::PNG)
boss_wrap(zlib ZLIB::ZLIB)
boss_wrap(crypto OpenSSL::Crypto)
boss_wrap(json nlohmann_json::nlohmann_json)
boss_wrap(cli11 CLI11::CLI11)

if(BOSS_BUILD_SERVER)
  find_package(SQLite3 REQUIRED)
  find_package(spdlog REQUIRED)
  boss_wrap(sqlite SQLite::SQLite3)
  boss_wrap(log spdlog::spdlog)
  boss_wrap(ssl OpenSSL::SSL)

  # The types of NVIDIA's management library; the library itself is the driver's, and opened at run time.
  set(BOSS_NVML_INCLUDE "/opt/boss/nvidia/cu13/include" CACHE PATH "Folder of nvml.h, see docker/install-deps.sh")
  if(NOT EXISTS "${BOSS_NVML_INCLUDE}/nvml.h")
    message(FATAL_ERROR "nvml.h not found under ${BOSS_NVML_INCLUDE}: run docker/install-deps.sh or set BOSS_NVML_INCLUDE")
  endif()
  add_library(boss_nvml_headers INTERFACE)
  add_library(boss::nvml_headers ALIAS boss_nvml_headers)
  target_compile_options(boss_nvml_headers INTERFACE "SHELL:-idirafter ${BOSS_NVML_INCLUDE}")
endif()

if(BOSS_WITH_TORCH)
  find_package(prometheus-cpp CONFIG REQUIRED)
  boss_wrap(prometheus prometheus-cpp::core)

  # gperftools' allocator, for programs that evaluate networks: evaluations allocate and free megabytes at a time, and glibc gives them
  # back to the kernel in between (docs/performance.md). Nothing refers to it, hence --no-as-needed.
  find_library(BOSS_TCMALLOC tcmalloc_minimal REQUIRED)
  boss_wrap(malloc "-Wl,--push-state,--no-as-needed" ${BOSS_TCMALLOC} "-Wl,--pop-state")

  # The wheel's own CMake package demands a CUDA toolkit, so its libraries are wrapped here. Linking libtorch_cpu and libc10 alone
  # gives one binary for every machine: CUDA kernels register themselves when libtorch_cuda.so is opened at run time.
  set(BOSS_TORCH_ROOT "/opt/boss/torch" CACHE PATH "Unpacked torch wheel (include/ and lib/), see docker/install-deps.sh")
  if(NOT EXISTS "${BOSS_TORCH_ROOT}/lib/libtorch_cpu.so")
    message(FATAL_ERROR "LibTorch not found under ${BOSS_TORCH_ROOT}: run docker/install-deps.sh or set BOSS_TORCH_ROOT")
  endif()
  add_library(boss_torch INTERFACE)
  add_library(boss::torch ALIAS boss_torch)
  # -idirafter: the wheel carries old google/protobuf headers that must not shadow the system's.
  target_compile_options(boss_torch INTERFACE
    "SHELL:-idirafter ${BOSS_TORCH_ROOT}/include" "SHELL:-idirafter ${BOSS_TORCH_ROOT}/include/torch/csrc/api/include")
  target_link_libraries(boss_torch INTERFACE
    "${BOSS_TORCH_ROOT}/lib/libtorch_cpu.so" "${BOSS_TORCH_ROOT}/lib/libc10.so" "${BOSS_TORCH_ROOT}/lib/libgomp.so.1"
    Threads::Threads)

  # For LibTorch's CUDA headers; nothing of CUDA is linked.
  cmake_path(GET BOSS_TORCH_ROOT PARENT_PATH boss_wheels)
  set(BOSS_CUDA_INCLUDE "${boss_wheels}/nvidia/cu13/include" CACHE PATH "Headers of the CUDA runtime, see docker/install-deps.sh")
  if(NOT EXISTS "${BOSS_CUDA_INCLUDE}/crt/host_defines.h")
    message(FATAL_ERROR "CUDA headers not found under ${BOSS_CUDA_INCLUDE}: run docker/install-deps.sh or set BOSS_CUDA_INCLUDE")
  endif()
  add_library(boss_cuda_headers INTERFACE)
  add_library(boss::cuda_headers ALIAS boss_cuda_headers)
  target_compile_options(boss_cuda_headers INTERFACE "SHELL:-idirafter ${BOSS_CUDA_INCLUDE}")
endif()

if(BOSS_BUILD_TESTS)
  find_package(GTest REQUIRED)
  boss_wrap(gtest GTest::gtest GTest::gmock)
  boss_wrap(gtest_main GTest::gtest GTest::gmock GTest::gmock_main)
endif()
