//! Published by its owner.
