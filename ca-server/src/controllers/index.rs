//! What a watch has told, by name.

use std::collections::{HashMap, HashSet};

use kube::ResourceExt;
use kube::runtime::watcher::Event;

/// What is known of the objects of one watch: only what is needed of each.
#[derive(Debug)]
pub(super) struct Index<V> {
    known: HashMap<String, V>,
    /// While a list is read: what was in it so far.
    listed: Option<HashSet<String>>,
    complete: bool,
}

impl<V> Index<V> {
    pub(super) fn new() -> Self {
        Self {
            known: HashMap::new(),
            listed: None,
            complete: false,
        }
    }

    /// Whether a whole list was read: until then, what is not known may be there all the same.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn get(&self, name: &str) -> Option<&V> {
        self.known.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.known.keys()
    }

    /// What a call has answered, which is newer than what the watch has told.
    pub(super) fn set(&mut self, name: String, value: V) {
        self.known.insert(name, value);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.known.remove(name);
    }

    /// Takes an event in, and says which objects are to be looked at again.
    pub(super) fn take<K: ResourceExt>(
        &mut self,
        event: Event<K>,
        name: impl Fn(&K) -> String,
        value: impl Fn(K) -> V,
    ) -> Vec<String> {
        match event {
            Event::Init => {
                self.listed = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let name = name(&object);
                if let Some(listed) = &mut self.listed {
                    listed.insert(name.clone());
                }
                self.known.insert(name.clone(), value(object));
                vec![name]
            }
            Event::InitDone => {
                self.complete = true;
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<String> = self
                    .known
                    .keys()
                    .filter(|name| !listed.contains(*name))
                    .cloned()
                    .collect();
                for name in &gone {
                    self.known.remove(name);
                }
                gone
            }
            Event::Apply(object) => {
                let name = name(&object);
                self.known.insert(name.clone(), value(object));
                vec![name]
            }
            Event::Delete(object) => {
                let name = name(&object);
                self.known.remove(&name);
                vec![name]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;
    use kube::api::ObjectMeta;

    use super::*;

    fn named(name: &str) -> Namespace {
        Namespace {
            metadata: ObjectMeta {
                name: Some(name.into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        }
    }

    fn take(index: &mut Index<usize>, event: Event<Namespace>) -> Vec<String> {
        index.take(event, ResourceExt::name_any, |object| {
            object.name_any().len()
        })
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone() {
        let mut index = Index::new();
        take(&mut index, Event::Init);
        take(&mut index, Event::InitApply(named("a")));
        assert!(!index.is_complete());
        assert!(take(&mut index, Event::InitDone).is_empty());
        assert!(index.is_complete());
        assert_eq!(take(&mut index, Event::Apply(named("bb"))), ["bb"]);
        // The watch was interrupted, and is listed again.
        take(&mut index, Event::Init);
        take(&mut index, Event::InitApply(named("bb")));
        assert_eq!(index.get("a"), Some(&1));
        assert_eq!(take(&mut index, Event::InitDone), ["a"]);
        assert_eq!(index.get("a"), None);
        assert_eq!(index.get("bb"), Some(&2));
        assert_eq!(take(&mut index, Event::Delete(named("bb"))), ["bb"]);
        assert_eq!(index.names().count(), 0);
    }
}
