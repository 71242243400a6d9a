//! What a request means. Pure.
