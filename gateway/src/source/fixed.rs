//! Configuration from memory: for tests, and for programs that embed the gateway and make their own configuration.
//!
//! Invariant: whoever holds the [`Handle`] decides when the state changes; the last state set is the one that is read.

use std::sync::Arc;

use async_trait::async_trait;
use config_model::{parse, set::AnyResource};
use tokio::sync::watch;

use super::{Health, Loaded, Source};

/// A source that holds what it was given.
#[derive(Debug)]
pub struct Fixed {
    states: watch::Receiver<Arc<Loaded>>,
    first: bool,
}

/// Changes what a [`Fixed`] source gives. When the last handle is gone, the state is final.
#[derive(Debug, Clone)]
pub struct Handle(watch::Sender<Arc<Loaded>>);

impl Fixed {
    /// A source with a first state, and the handle to change it.
    #[must_use]
    pub fn new(loaded: Loaded) -> (Fixed, Handle) {
        let (sender, states) = watch::channel(Arc::new(loaded));
        (Fixed { states, first: true }, Handle(sender))
    }

    /// A source of resources made by a program.
    #[must_use]
    pub fn of(resources: Vec<AnyResource>) -> (Fixed, Handle) {
        Fixed::new(Loaded { resources, ..Loaded::default() })
    }

    /// A source of YAML text; `name` stands for the file in messages.
    #[must_use]
    pub fn yaml(name: &str, text: &str) -> (Fixed, Handle) {
        Fixed::new(read(name, text))
    }
}

impl Handle {
    /// Replaces the whole state.
    pub fn set(&self, loaded: Loaded) {
        self.0.send_replace(Arc::new(loaded));
    }

    /// Replaces the whole state with what the text says.
    pub fn set_yaml(&self, name: &str, text: &str) {
        self.set(read(name, text));
    }
}

/// Reads one text as a source would read a file.
#[must_use]
pub fn read(name: &str, text: &str) -> Loaded {
    let parsed = parse::parse(name, text);
    Loaded {
        unparsable: parsed.failed.len(),
        resources: parsed.resources,
        kept: Vec::new(),
        diagnostics: parsed.diagnostics,
        health: Health::Synchronized,
    }
}

#[async_trait]
impl Source for Fixed {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn next(&mut self) -> Option<Loaded> {
        if !std::mem::take(&mut self.first) {
            self.states.changed().await.ok()?;
        }
        let state = Arc::clone(&self.states.borrow_and_update());
        Some(Loaded::clone(&state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80, name: http}]}\n";

    #[tokio::test]
    async fn a_new_state_is_given_once_and_the_end_is_told() {
        let (mut source, handle) = Fixed::yaml("a.yaml", SERVICE);
        assert_eq!(source.next().await.unwrap().resources.len(), 1);
        handle.set(Loaded::default());
        assert_eq!(source.next().await.unwrap().resources.len(), 0);
        drop(handle);
        assert!(source.next().await.is_none());
    }
}
