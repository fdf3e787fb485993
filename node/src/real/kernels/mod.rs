//! Packed matrices and their products with f32 activations, at the best SIMD level of the machine.
