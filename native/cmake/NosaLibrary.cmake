# One static library per folder, where a library sees only the headers of the folders it may use.
#
# Headers are included as "core/status.h". So that "kv/block.h" does not compile in core/, there is
# no common include root: each library gets a folder of its own in the build tree, with one
# forwarding header for each of its headers, and hands that folder on to those who link it.

# nosa_headers(<name> [<folder>])
#   Interface library nosa::<name>_headers that makes <folder>/**.h includable as "<name>/...".
function(nosa_headers name)
  set(folder ${CMAKE_CURRENT_SOURCE_DIR})
  if(ARGC GREATER 1)
    set(folder ${ARGV1})
  endif()
  set(root ${CMAKE_BINARY_DIR}/include/${name})
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${folder}
       ${folder}/*.h ${folder}/*.cuh)
  foreach(header IN LISTS headers)
    set(forward "#include \"${folder}/${header}\"\n")
    set(target ${root}/${name}/${header})
    file(GENERATE OUTPUT ${target} CONTENT "${forward}")
  endforeach()
  add_library(nosa_${name}_headers INTERFACE)
  add_library(nosa::${name}_headers ALIAS nosa_${name}_headers)
  target_include_directories(nosa_${name}_headers INTERFACE ${root})
endfunction()

# nosa_library(<name> SOURCES <file>... [DEPENDS <name>...])
#   Static library nosa::<name> of the current folder, on top of the libraries nosa::<depends>.
function(nosa_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPENDS")
  nosa_headers(${name})
  add_library(nosa_${name} STATIC ${arg_SOURCES})
  add_library(nosa::${name} ALIAS nosa_${name})
  target_link_libraries(nosa_${name} PUBLIC nosa::${name}_headers)
  foreach(depend IN LISTS arg_DEPENDS)
    target_link_libraries(nosa_${name} PUBLIC nosa::${depend})
  endforeach()
endfunction()

# nosa_test(<file without .cpp> <depends>...)
#   Test executable of one GoogleTest file, registered with ctest as "<folder>/<file>".
function(nosa_test name)
  get_filename_component(folder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  set(target test_${folder}_${name})
  add_executable(${target} ${name}.cpp)
  target_link_libraries(${target} PRIVATE GTest::gtest_main)
  foreach(depend IN LISTS ARGN)
    target_link_libraries(${target} PRIVATE nosa::${depend})
  endforeach()
  add_test(NAME ${folder}/${name} COMMAND ${target})
endfunction()
