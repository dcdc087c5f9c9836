# Fails when an object file that is compiled for an instruction set defines a symbol that the linker
# may share with other files: on an older processor the shared copy would be an illegal instruction.
#
#   cmake -DNM=<nm> -DOBJECTS=<objects> -P isolated_objects.cmake
foreach(object IN LISTS OBJECTS)
  if(NOT object MATCHES "ops_(avx|neon)")
    continue()
  endif()
  execute_process(COMMAND ${NM} -C ${object} OUTPUT_VARIABLE symbols RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "${NM} cannot read ${object}")
  endif()
  string(REGEX MATCHALL "[^\n]* [WVu] [^\n]*" shared "${symbols}")
  if(shared)
    string(REPLACE ";" "\n" shared "${shared}")
    message(FATAL_ERROR "${object} shares code with other files:\n${shared}")
  endif()
  message(STATUS "${object} stands alone")
endforeach()
