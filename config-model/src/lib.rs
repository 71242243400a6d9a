//! Istio's networking API as types.
