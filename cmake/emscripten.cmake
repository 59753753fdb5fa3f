# Finds the Emscripten toolchain file of whatever Emscripten is on the PATH: Debian's or an emsdk's.
find_program(EM_CONFIG NAMES em-config em-config.bat)
if(NOT EM_CONFIG)
  message(FATAL_ERROR "Emscripten was not found: no em-config on the PATH. "
    "Debian: apt-get install emscripten. Elsewhere: install emsdk and activate it.")
endif()
execute_process(COMMAND ${EM_CONFIG} EMSCRIPTEN_ROOT
  OUTPUT_VARIABLE EMSCRIPTEN_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
include(${EMSCRIPTEN_ROOT}/cmake/Modules/Platform/Emscripten.cmake)
