# Included by the build of llama-cpp-python: leaves out the install rule of a library that no part of the binding loads,
# because only the targets `llama` and `mtmd` are built (see .ci/install).
macro(install)
  if(NOT "${ARGV}" MATCHES "llama-common")
    _install(${ARGV})
  endif()
endmacro()
