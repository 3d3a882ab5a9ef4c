# Language level, warnings and sanitizers for every target of the project.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
# One setting for libraries and programs, with threads or without, so that all can share the precompiled header.
add_compile_options(-fPIC -pthread)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(BOSS_CCACHE ccache)
if(BOSS_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # base_dir lets two checkouts share results; the sloppiness is what ccache's manual asks for with precompiled headers.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env "CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}" CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${BOSS_CCACHE})
endif()

add_library(boss_options INTERFACE)
target_compile_options(boss_options INTERFACE -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers)
target_include_directories(boss_options INTERFACE "${PROJECT_SOURCE_DIR}")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(boss_options INTERFACE -fpch-preprocess)
elseif(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # Without the time in it, a precompiled header that is made again is the same for ccache.
  add_compile_options("SHELL:-Xclang -fno-pch-timestamp")
endif()

set(BOSS_SANITIZER "" CACHE STRING "address or thread; empty for none")
if(BOSS_SANITIZER)
  add_compile_options(-fsanitize=${BOSS_SANITIZER} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${BOSS_SANITIZER})
  if(BOSS_SANITIZER STREQUAL "address")
    add_compile_options(-fsanitize=undefined -fno-sanitize-recover=undefined)
    add_link_options(-fsanitize=undefined)
  endif()
endif()

if(BOSS_BUILD_FUZZERS)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "The fuzzers need Clang, got ${CMAKE_CXX_COMPILER_ID}: use the preset fuzz")
  endif()
  # Counters in all our code; only the fuzzers themselves get libFuzzer's main().
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
