//! Whole clusters of the deciding rooms under one seed.
