# Cross compiles for 64-bit ARM with Debian's g++-aarch64-linux-gnu:
#   cmake -S . -B build-aarch64 -DCMAKE_TOOLCHAIN_FILE=native/cmake/aarch64.cmake
# With qemu-user installed, ctest runs the tests through it.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
find_program(NOSA_QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static)
if(NOSA_QEMU_AARCH64)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${NOSA_QEMU_AARCH64};-L;/usr/aarch64-linux-gnu")
endif()
