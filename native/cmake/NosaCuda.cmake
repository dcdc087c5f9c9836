# How the CUDA part is compiled. CMAKE_CUDA_ARCHITECTURES says for which machines.

# CMake 3.25 does not know yet that this compiler can.
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
# No library of the toolkit has to be there where it runs, only the driver.
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")
# The layouts of core/ and of packed weights are constexpr functions that kernels use too.
add_compile_options($<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>)
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Xfatbin -compress-all>")
