//! A radix tree over path bytes: all prefixes of a path in one walk down.
//!
//! Invariant: a walk costs the length of the path, whatever the number of prefixes. Nodes are in one vector and refer
//! to each other by number; a node that ends a prefix knows the next shorter one that ends on the way to it.

/// A finished tree.
#[derive(Debug)]
pub(super) struct Radix {
    nodes: Box<[Node]>,
    /// Labels, and first bytes of labels.
    bytes: Box<[u8]>,
    /// Nodes and routes.
    numbers: Box<[u32]>,
}

/// A node; its lists are parts of the tree's, for a tree of its own for each of thousands of hosts takes as much memory as its pieces are
/// many.
#[derive(Debug)]
struct Node {
    /// What stands between the parent and this node.
    label: Part,
    /// First bytes of the children's labels, in the order of `children`.
    firsts: Part,
    children: Part,
    /// Routes whose prefix ends here, ascending.
    prefix: Part,
    /// Routes whose whole path ends here, ascending.
    exact: Part,
    /// Nearest node above where a prefix ends.
    shorter: u32,
}

/// There is no such node.
const NONE: u32 = u32::MAX;

/// A part of a list.
#[derive(Clone, Copy, Debug)]
struct Part {
    begin: u32,
    end: u32,
}

impl Part {
    /// The end of the list, to which this is added.
    fn added<T>(list: &mut Vec<T>, more: impl IntoIterator<Item = T>) -> Self {
        let begin = list.len() as u32;
        list.extend(more);
        Self { begin, end: list.len() as u32 }
    }

    fn of<T>(self, list: &[T]) -> &[T] {
        list.get(self.begin as usize..self.end as usize).unwrap_or_default()
    }
}

/// What a walk found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'r> {
    tree: &'r Radix,
    /// The longest prefix.
    longest: u32,
    /// Routes for exactly this path.
    pub(super) exact: &'r [u32],
}

impl<'r> Found<'r> {
    /// The routes of each prefix, longest prefix first.
    pub(super) fn lists(&self) -> impl Iterator<Item = &'r [u32]> + use<'r> {
        let tree = self.tree;
        let mut next = self.longest;
        std::iter::from_fn(move || {
            // No list is that long, so that there is no node of the number that stands for none.
            let node = tree.nodes.get(next as usize)?;
            next = node.shorter;
            Some(node.prefix.of(&tree.numbers))
        })
    }
}

impl Radix {
    /// Walks down a path; with `FOLD`, upper-case bytes of the path are taken for lower-case ones.
    pub(super) fn find<const FOLD: bool>(&self, path: &[u8]) -> Found<'_> {
        let mut found = Found { tree: self, longest: NONE, exact: &[] };
        let Some(mut node) = self.nodes.first() else { return found };
        let mut at = 0;
        let mut rest = path;
        loop {
            if node.prefix.begin < node.prefix.end {
                found.longest = at;
            }
            let Some(first) = rest.first() else {
                found.exact = node.exact.of(&self.numbers);
                return found;
            };
            let first = if FOLD { first.to_ascii_lowercase() } else { *first };
            let child = memchr::memchr(first, node.firsts.of(&self.bytes));
            let Some(child) = child.and_then(|i| node.children.of(&self.numbers).get(i)) else {
                return found;
            };
            let Some(next) = self.nodes.get(*child as usize) else { return found };
            let label = next.label.of(&self.bytes);
            let Some((head, tail)) = rest.split_at_checked(label.len()) else { return found };
            let same = if FOLD { head.eq_ignore_ascii_case(label) } else { *head == *label };
            if !same {
                return found;
            }
            (node, at, rest) = (next, *child, tail);
        }
    }
}

/// A tree that is being made.
#[derive(Debug, Default)]
pub(super) struct Builder {
    nodes: Vec<Growing>,
}

#[derive(Debug, Default)]
struct Growing {
    label: Vec<u8>,
    children: Vec<u32>,
    prefix: Vec<u32>,
    exact: Vec<u32>,
}

impl Builder {
    /// Adds a route for every path that begins with `text`. Routes come in ascending order.
    pub(super) fn insert_prefix(&mut self, text: &[u8], route: u32) {
        let at = self.node(text);
        if let Some(node) = self.nodes.get_mut(at) {
            node.prefix.push(route);
        }
    }

    /// Adds a route for exactly the path `text`. Routes come in ascending order.
    pub(super) fn insert_exact(&mut self, text: &[u8], route: u32) {
        let at = self.node(text);
        if let Some(node) = self.nodes.get_mut(at) {
            node.exact.push(route);
        }
    }

    /// The node at which `text` ends, made if need be.
    fn node(&mut self, text: &[u8]) -> usize {
        if self.nodes.is_empty() {
            self.nodes.push(Growing::default());
        }
        let mut at = 0;
        let mut rest = text;
        while let Some(first) = rest.first() {
            let Some(child) = self.child(at, *first) else { return self.push_child(at, rest) };
            let shared = self.nodes.get(child).map_or(0, |node| shared_len(&node.label, rest));
            self.split(child, shared);
            at = child;
            rest = rest.get(shared..).unwrap_or_default();
        }
        at
    }

    fn child(&self, at: usize, first: u8) -> Option<usize> {
        let node = self.nodes.get(at)?;
        let mut children = node.children.iter().map(|child| *child as usize);
        children.find(|child| self.nodes.get(*child).is_some_and(|c| c.label.first() == Some(&first)))
    }

    fn push_child(&mut self, at: usize, label: &[u8]) -> usize {
        let child = self.nodes.len();
        self.nodes.push(Growing { label: label.to_vec(), ..Growing::default() });
        if let Some(node) = self.nodes.get_mut(at) {
            node.children.push(child as u32);
        }
        child
    }

    /// Cuts a node's label at `len`: the node keeps the front, a new child takes the rest and all that hung on it.
    fn split(&mut self, at: usize, len: usize) {
        let below = self.nodes.len() as u32;
        let Some(node) = self.nodes.get_mut(at) else { return };
        if len >= node.label.len() {
            return;
        }
        let tail = node.label.split_off(len);
        let lower = Growing {
            label: tail,
            children: std::mem::replace(&mut node.children, vec![below]),
            prefix: std::mem::take(&mut node.prefix),
            exact: std::mem::take(&mut node.exact),
        };
        self.nodes.push(lower);
    }

    /// The tree for lookups.
    pub(super) fn finish(self) -> Radix {
        let mut shorter = vec![NONE; self.nodes.len()];
        let mut todo: Vec<(u32, u32)> = if self.nodes.is_empty() { Vec::new() } else { vec![(0, NONE)] };
        while let Some((at, above)) = todo.pop() {
            let Some(node) = self.nodes.get(at as usize) else { continue };
            if let Some(slot) = shorter.get_mut(at as usize) {
                *slot = above;
            }
            let above = if node.prefix.is_empty() { above } else { at };
            todo.extend(node.children.iter().map(|child| (*child, above)));
        }
        let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
        let nodes = self.nodes.iter().zip(shorter).map(|(node, shorter)| {
            let children = node.children.iter().filter_map(|child| self.nodes.get(*child as usize));
            Node {
                label: Part::added(&mut bytes, node.label.iter().copied()),
                firsts: Part::added(&mut bytes, children.filter_map(|child| child.label.first().copied())),
                children: Part::added(&mut numbers, node.children.iter().copied()),
                prefix: Part::added(&mut numbers, node.prefix.iter().copied()),
                exact: Part::added(&mut numbers, node.exact.iter().copied()),
                shorter,
            }
        });
        Radix { nodes: nodes.collect(), bytes: bytes.into(), numbers: numbers.into() }
    }
}

fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(prefixes: &[&str]) -> Radix {
        let mut builder = Builder::default();
        for (index, prefix) in (0..).zip(prefixes) {
            builder.insert_prefix(prefix.as_bytes(), index);
        }
        builder.finish()
    }

    fn prefixes(tree: &Radix, path: &str) -> Vec<u32> {
        tree.find::<false>(path.as_bytes()).lists().flatten().copied().collect()
    }

    #[test]
    fn all_prefixes_longest_first() {
        let tree = tree(&["/", "/api", "/api/v1", "/apple", "/api", "", "/b"]);
        assert_eq!(prefixes(&tree, "/api/v1/x"), [2, 1, 4, 0, 5]);
        assert_eq!(prefixes(&tree, "/apple"), [3, 0, 5]);
        assert_eq!(prefixes(&tree, "/appl"), [0, 5]);
        assert_eq!(prefixes(&tree, "x"), [5]);
        assert_eq!(prefixes(&super::tests::tree(&[]), "/"), [0_u32; 0]);
    }

    #[test]
    fn splitting_keeps_what_hung_below() {
        let tree = tree(&["/abc/def", "/abc/dxy", "/ab", "/abc"]);
        assert_eq!(prefixes(&tree, "/abc/def"), [0, 3, 2]);
        assert_eq!(prefixes(&tree, "/abc/dxyz"), [1, 3, 2]);
    }

    #[test]
    fn whole_paths_and_case() {
        let mut builder = Builder::default();
        builder.insert_prefix(b"/a", 0);
        builder.insert_exact(b"/abc", 1);
        let tree = builder.finish();
        assert_eq!(tree.find::<true>(b"/ABC").exact, [1]);
        assert_eq!(tree.find::<false>(b"/ABC").exact, [0_u32; 0]);
        assert_eq!(tree.find::<true>(b"/ABCD").exact, [0_u32; 0]);
        assert_eq!(tree.find::<true>(b"/AB").lists().flatten().copied().collect::<Vec<_>>(), [0]);
    }
}
