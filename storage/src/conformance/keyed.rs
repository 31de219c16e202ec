//! Suite of [`KeyedStore`].

use std::future::Future;

use bytes::Bytes;

use crate::keyed::{Batch, KeyedError, KeyedSnapshot, KeyedStore, Pairs};

/// A store that the suite can restart.
pub trait KeyedUnderTest {
    /// The store.
    type Store: KeyedStore;

    /// A namespace; equal numbers are the same one.
    fn namespace(&self, number: u64) -> Self::Store;

    /// Ends the store as a power loss does, if that can be done here, else as a killed process, and opens it again.
    fn restart(&mut self) -> impl Future<Output = ()>;
}

fn batch<const N: usize>(writes: [(&str, Option<&str>); N]) -> Batch {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Batch { writes: writes.map(|(key, value)| (bytes(key), value.map(bytes))).into() }
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Pairs {
    pairs.map(|(key, value)| (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))).into()
}

async fn all<S: KeyedStore>(store: &S) -> Pairs {
    store.range(b"", b"", usize::MAX).await.expect("range")
}

async fn drain(mut snapshot: Box<dyn KeyedSnapshot>, max_bytes: usize) -> Pairs {
    let mut pairs = Vec::new();
    loop {
        let next = snapshot.next(max_bytes).await.expect("snapshot");
        if next.is_empty() {
            return pairs;
        }
        pairs.extend(next);
    }
}

/// Checks a store, which is empty.
pub async fn check_keyed<K: KeyedUnderTest>(mut under_test: K) {
    let t = &mut under_test;
    batches_apply_in_order(t).await;
    ranges_are_half_open(t).await;
    namespaces_are_apart(t).await;
    large_values_come_back(t).await;
    refusals(t).await;
    what_was_persisted_survives(t).await;
    a_snapshot_stands_still(t).await;
    an_install_replaces_everything(t).await;
}

async fn batches_apply_in_order<K: KeyedUnderTest>(t: &mut K) {
    let store = t.namespace(1);
    assert_eq!(store.get(b"k").await.expect("get"), None);
    store.apply(batch([("k", Some("1")), ("k", Some("2")), ("gone", Some("x")), ("gone", None)])).await.expect("apply");
    assert_eq!(store.get(b"k").await.expect("get"), Some(Bytes::from_static(b"2")), "later entries win");
    assert_eq!(store.get(b"gone").await.expect("get"), None);
    store.apply(batch([("k", None), ("absent", None), ("empty", Some(""))])).await.expect("apply");
    assert_eq!(all(&store).await, pairs([("empty", "")]));
    store.apply(Batch::default()).await.expect("an empty batch");
}

async fn ranges_are_half_open<K: KeyedUnderTest>(t: &mut K) {
    let store = t.namespace(2);
    store.apply(batch([("c", Some("3")), ("a", Some("1")), ("b", Some("2")), ("ab", Some("1b"))])).await.expect("apply");
    assert_eq!(all(&store).await, pairs([("a", "1"), ("ab", "1b"), ("b", "2"), ("c", "3")]));
    assert_eq!(store.range(b"ab", b"c", 10).await.expect("range"), pairs([("ab", "1b"), ("b", "2")]));
    assert_eq!(store.range(b"aa", b"", 2).await.expect("range"), pairs([("ab", "1b"), ("b", "2")]));
    assert_eq!(store.range(b"c", b"a", 10).await.expect("range"), pairs([]));
    assert_eq!(store.range(b"a", b"c", 0).await.expect("range"), pairs([]));
}

async fn namespaces_are_apart<K: KeyedUnderTest>(t: &mut K) {
    let (low, high) = (t.namespace(0x1_0000), t.namespace(0x1_0001));
    low.apply(batch([("k", Some("low"))])).await.expect("apply");
    high.apply(batch([("k", Some("high"))])).await.expect("apply");
    assert_eq!((all(&low).await, all(&high).await), (pairs([("k", "low")]), pairs([("k", "high")])));
    low.apply(batch([("k", None)])).await.expect("apply");
    assert_eq!((all(&low).await, all(&high).await), (pairs([]), pairs([("k", "high")])));
}

async fn large_values_come_back<K: KeyedUnderTest>(t: &mut K) {
    let store = t.namespace(3);
    let value = |size: usize, step: usize| Bytes::from((0..size).map(|at| (at * step % 251) as u8).collect::<Vec<_>>());
    for size in [0, 1, 32 * 1024 - 1, 32 * 1024, 32 * 1024 + 1, 300_000, 70_000, 5] {
        let value = value(size, 1 + size % 7);
        store.apply(Batch { writes: vec![(Bytes::from_static(b"big"), Some(value.clone()))] }).await.expect("apply");
        assert_eq!(store.get(b"big").await.expect("get").as_ref(), Some(&value), "{size} bytes");
        assert_eq!(all(&store).await, vec![(Bytes::from_static(b"big"), value)]);
    }
    store.apply(batch([("big", None)])).await.expect("apply");
    assert_eq!(all(&store).await, pairs([]));
}

async fn refusals<K: KeyedUnderTest>(t: &mut K) {
    let store = t.namespace(4);
    let long = Bytes::from(vec![1; 4096]);
    let writes = vec![(Bytes::from_static(b"fine"), Some(Bytes::new())), (long, Some(Bytes::new()))];
    let refused = store.apply(Batch { writes }).await;
    assert!(matches!(refused, Err(KeyedError::TooLarge { what: "key", size_bytes: 4096 })), "{refused:?}");
    assert_eq!(all(&store).await, pairs([]), "nothing of a refused batch is there");
}

async fn what_was_persisted_survives<K: KeyedUnderTest>(t: &mut K) {
    let store = t.namespace(5);
    store.apply(batch([("a", Some("1")), ("b", Some("1"))])).await.expect("apply");
    store.persist().await.expect("persist");
    store.apply(batch([("a", Some("2")), ("b", Some("2"))])).await.expect("apply");
    drop(store);
    t.restart().await;
    let store = t.namespace(5);
    let found = all(&store).await;
    assert!(
        found == pairs([("a", "1"), ("b", "1")]) || found == pairs([("a", "2"), ("b", "2")]),
        "a whole batch at or after the last persist, not {found:?}"
    );
}

async fn a_snapshot_stands_still<K: KeyedUnderTest>(t: &mut K) {
    let store = t.namespace(6);
    let key = |number: usize| Bytes::from(format!("{number:04}"));
    let filled = (0..300).step_by(2).map(|number| (key(number), Some(Bytes::from(vec![1; 100])))).collect();
    store.apply(Batch { writes: filled }).await.expect("apply");
    let before = all(&store).await;
    let mut snapshot = store.snapshot().await.expect("snapshot");
    let second = store.snapshot().await;
    assert!(second.is_err(), "one at a time");
    let mut seen = snapshot.next(1000).await.expect("next");
    for number in 0..300 {
        let value = (number % 3 == 0).then(|| Bytes::from_static(b"new"));
        store.apply(Batch { writes: vec![(key(number), value)] }).await.expect("apply");
        if number % 50 == 0 {
            seen.extend(snapshot.next(700).await.expect("next"));
        }
    }
    seen.extend(drain(snapshot, 900).await);
    assert_eq!(seen, before);
    drop(store.snapshot().await.expect("the next one, after the first was dropped"));
    drop(store.snapshot().await.expect("and after one that was not read to its end"));
}

async fn an_install_replaces_everything<K: KeyedUnderTest>(t: &mut K) {
    let (source, target, other) = (t.namespace(7), t.namespace(8), t.namespace(9));
    let big = Bytes::from(vec![7; 100_000]);
    source.apply(Batch { writes: vec![(Bytes::from_static(b"big"), Some(big.clone()))] }).await.expect("apply");
    source.apply(batch([("k", Some("installed"))])).await.expect("apply");
    target.apply(batch([("k", Some("old")), ("old", Some("old"))])).await.expect("apply");
    other.apply(batch([("k", Some("other"))])).await.expect("apply");
    other.persist().await.expect("persist");
    let expected = all(&source).await;
    target.install(source.snapshot().await.expect("snapshot")).await.expect("install");
    assert_eq!(all(&target).await, expected);
    target.apply(batch([("later", Some("1"))])).await.expect("apply");
    target.persist().await.expect("persist");
    drop((source, target, other));
    t.restart().await;
    let found = all(&t.namespace(8)).await;
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found[1], (Bytes::from_static(b"k"), Bytes::from_static(b"installed")));
    assert_eq!(all(&t.namespace(9)).await, pairs([("k", "other")]));
}
