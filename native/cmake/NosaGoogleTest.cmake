# Finds or builds GTest::gtest_main.

find_package(GTest QUIET)
if(NOT GTest_FOUND)
  # Debian's googletest package is the source, which also serves when cross compiling.
  find_path(NOSA_GTEST_SOURCE googletest/CMakeLists.txt PATHS /usr/src/googletest
            NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
  if(NOT NOSA_GTEST_SOURCE)
    message(FATAL_ERROR "GoogleTest is missing: install libgtest-dev, or set NOSA_TESTS=OFF")
  endif()
  set(INSTALL_GTEST OFF)
  add_subdirectory(${NOSA_GTEST_SOURCE} ${CMAKE_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
  if(NOT TARGET GTest::gtest_main)
    add_library(GTest::gtest_main ALIAS gtest_main)
  endif()
endif()
