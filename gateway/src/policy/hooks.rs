//! Which hooks a policy has.

/// A set of hooks, as [`Policy::HOOKS`](super::Policy::HOOKS) declares it.
///
/// # Examples
/// ```
/// use gateway::policy::Hooks;
///
/// const HOOKS: Hooks = Hooks::REQUEST.and(Hooks::COMPLETE);
/// assert!(HOOKS.has(Hooks::COMPLETE) && !HOOKS.has(Hooks::RESPONSE));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks(u8);

impl Hooks {
    /// None of them.
    pub const NONE: Hooks = Hooks(0);
    /// `on_request`.
    pub const REQUEST: Hooks = Hooks(1);
    /// `on_route`.
    pub const ROUTE: Hooks = Hooks(2);
    /// `on_upstream`.
    pub const UPSTREAM: Hooks = Hooks(4);
    /// `on_response`.
    pub const RESPONSE: Hooks = Hooks(8);
    /// `on_complete`.
    pub const COMPLETE: Hooks = Hooks(16);
    /// Bodies: had by whoever is put into a chain with them.
    pub(super) const BODIES: Hooks = Hooks(32);
    /// All of them.
    pub const ALL: Hooks = Hooks(31);

    /// These and those.
    #[must_use]
    pub const fn and(self, other: Hooks) -> Hooks {
        Hooks(self.0 | other.0)
    }

    /// Whether any of `other` is among them.
    pub(super) const fn has_any(self, other: Hooks) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all of `other` are among them.
    #[must_use]
    pub const fn has(self, other: Hooks) -> bool {
        self.0 & other.0 == other.0
    }
}
