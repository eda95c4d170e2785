// All kernels as one module.
#include "redact.cu"
#include "view.cu"
