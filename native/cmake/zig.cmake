# Cross compiles with zig, which brings clang and the C and C++ libraries of other systems:
#   NOSA_ZIG_TOOLS      folder with c++, ar, ranlib and rc for one target; scripts/lib/zig.mjs writes it
#   NOSA_ZIG_SYSTEM     Windows, Darwin or Linux
#   NOSA_ZIG_PROCESSOR  x86_64 or aarch64
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES NOSA_ZIG_TOOLS NOSA_ZIG_SYSTEM NOSA_ZIG_PROCESSOR)
set(CMAKE_SYSTEM_NAME ${NOSA_ZIG_SYSTEM})
set(CMAKE_SYSTEM_PROCESSOR ${NOSA_ZIG_PROCESSOR})
set(CMAKE_CXX_COMPILER ${NOSA_ZIG_TOOLS}/c++)
set(CMAKE_AR ${NOSA_ZIG_TOOLS}/ar CACHE FILEPATH "")
set(CMAKE_RANLIB ${NOSA_ZIG_TOOLS}/ranlib CACHE FILEPATH "")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
# zig looks after what CMake has programs of the system's own for.
set(CMAKE_RC_COMPILER ${NOSA_ZIG_TOOLS}/rc)
set(CMAKE_INSTALL_NAME_TOOL ${NOSA_ZIG_TOOLS}/ranlib CACHE FILEPATH "")
set(CMAKE_OSX_SYSROOT "" CACHE STRING "")
