//! Quantities as people write and read them. Inside the crates a quantity is a number whose name ends in its unit.
