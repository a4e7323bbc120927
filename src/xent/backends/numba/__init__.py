"""The row statistics on CPUs, in kernels that LLVM compiles for the machine at hand."""
