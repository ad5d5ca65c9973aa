use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::scripted;

fn pod(uid: &str, account: &str, node: &str) -> WatchedPod {
    named_pod("p", uid, account, node)
}

fn named_pod(name: &str, uid: &str, account: &str, node: &str) -> WatchedPod {
    read(scripted::pod("shop", name, uid, account, node))
}

fn account(name: &str, uid: &str) -> WatchedAccount {
    read(scripted::account("shop", name, uid))
}

fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

fn with_phase(uid: &str, phase: &str) -> WatchedPod {
    let mut pod = pod(uid, "cart", "n1");
    pod.status = Some(PodStatus {
        phase: Some(phase.into()),
    });
    pod
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

/// One pod `p` with UID 1 and account `cart` with UID a, on node n1.
fn shop() -> Workloads {
    let mut workloads = Workloads::default();
    workloads.all_accounts(vec![account("cart", "a")]);
    workloads.all_pods(vec![pod("1", "cart", "n1")]);
    workloads
}

fn bound(uid: &str) -> Bound {
    Bound {
        account_uid: Some(uid.into()),
        node: Some("n1".into()),
        to_secret: false,
    }
}

fn of_pod(workloads: &Workloads, uid: &str) -> Standing {
    standing(workloads, Some(("p", uid)), &bound("a"))
}

fn standing(workloads: &Workloads, pod: Option<(&str, &str)>, bound: &Bound) -> Standing {
    let pod = pod.map(|(name, uid)| Pod {
        name: name.into(),
        uid: uid.into(),
    });
    let cart = ServiceAccount::new("shop", "cart").unwrap();
    workloads.standing(&cart, pod.as_ref(), bound, now())
}

#[test]
fn a_token_is_as_good_as_what_it_is_bound_to() {
    let shop = shop();
    assert_eq!(of_pod(&shop, "1"), Standing::Alive);
    // Made without a pod.
    let plain = Bound {
        node: None,
        ..bound("a")
    };
    assert_eq!(standing(&shop, None, &plain), Standing::Alive);
    for (pod, bound, what) in [
        (Some(("p", "2")), bound("a"), NotKnown::Pod),
        (Some(("q", "1")), bound("a"), NotKnown::Pod),
        (Some(("p", "")), bound("a"), NotKnown::NoUid),
        (Some(("p", "1")), bound("b"), NotKnown::Account),
        (Some(("p", "1")), bound(""), NotKnown::NoUid),
        (Some(("p", "1")), Bound::default(), NotKnown::NoUid),
        (None, bound("a"), NotKnown::Bound),
        (
            None,
            Bound {
                to_secret: true,
                ..plain
            },
            NotKnown::Bound,
        ),
    ] {
        assert_eq!(
            standing(&shop, pod, &bound),
            Standing::Unknown(what),
            "{pod:?} {bound:?}"
        );
    }
    let elsewhere = Bound {
        node: Some("n2".into()),
        ..bound("a")
    };
    let verdict = standing(&shop, Some(("p", "1")), &elsewhere);
    assert_eq!(verdict, Standing::Gone(Gone::OtherNode));
}

#[test]
fn what_is_deleted_finished_or_replaced_is_gone_for_good() {
    let gone = |change: fn(&mut Workloads)| {
        let mut shop = shop();
        change(&mut shop);
        of_pod(&shop, "1")
    };
    for (change, reason) in [
        (
            (|shop| shop.delete_pod(pod("1", "cart", "n1"))) as fn(&mut Workloads),
            Gone::Pod,
        ),
        (|shop| shop.all_pods(Vec::new()), Gone::Pod),
        (
            |shop| shop.all_pods(vec![pod("2", "cart", "n1")]),
            Gone::Pod,
        ),
        (|shop| shop.apply_pod(pod("2", "cart", "n1")), Gone::Pod),
        (
            |shop| shop.apply_pod(with_phase("1", "Failed")),
            Gone::Finished,
        ),
        (
            |shop| shop.apply_pod(with_phase("1", "Succeeded")),
            Gone::Finished,
        ),
        (
            |shop| shop.apply_pod(pod("1", "gate", "n1")),
            Gone::OtherAccount,
        ),
        (
            |shop| shop.delete_account(account("cart", "a")),
            Gone::Account,
        ),
        (|shop| shop.all_accounts(Vec::new()), Gone::Account),
        (
            |shop| shop.apply_account(account("cart", "b")),
            Gone::Account,
        ),
    ] {
        assert_eq!(gone(change), Standing::Gone(reason));
    }
    // News of an object that stays as it is changes nothing.
    assert_eq!(
        gone(|shop| shop.apply_pod(with_phase("1", "Pending"))),
        Standing::Alive
    );
    assert_eq!(
        gone(|shop| shop.all_pods(vec![pod("1", "cart", "n1")])),
        Standing::Alive
    );
    assert_eq!(
        gone(|shop| shop.apply_account(account("cart", "a"))),
        Standing::Alive
    );
}

#[test]
fn a_pod_that_is_being_deleted_is_good_until_a_minute_after_its_end() {
    let ends_at = |offset: i64| {
        let at = (now() + Duration::seconds(offset))
            .format(&time::format_description::well_known::Rfc3339)
            .unwrap();
        let mut object = scripted::pod("shop", "p", "1", "cart", "n1");
        object["metadata"]["deletionTimestamp"] = json!(at);
        let mut shop = shop();
        shop.apply_pod(read(object));
        of_pod(&shop, "1")
    };
    assert_eq!(ends_at(30), Standing::Alive);
    assert_eq!(ends_at(-60), Standing::Alive);
    assert_eq!(ends_at(-61), Standing::Gone(Gone::Pod));
}

#[test]
fn only_as_many_uids_as_there_is_room_for_are_remembered() {
    let mut gone = RecentlyGone::default();
    for uid in 0..RecentlyGone::LIMIT + 10 {
        gone.add(uid.to_string().into());
        gone.add(uid.to_string().into());
    }
    assert!(!gone.contains("9") && gone.contains("10"));
    assert_eq!(gone.uids.len(), RecentlyGone::LIMIT);
    assert_eq!(gone.in_order.len(), RecentlyGone::LIMIT);
}

fn neighbour(
    shop: &Workloads,
    caller: (&str, &str, &str),
    wanted: &str,
) -> Result<(), NodeProxyRefusal> {
    let (account, name, uid) = caller;
    let pod = Pod {
        name: name.into(),
        uid: uid.into(),
    };
    let account = ServiceAccount::new("shop", account).unwrap();
    shop.share_a_node(
        &account,
        &pod,
        &ServiceAccount::new("shop", wanted).unwrap(),
    )
}

#[test]
fn a_node_proxy_has_the_accounts_of_the_pods_on_its_node() {
    let mut shop = Workloads::default();
    shop.all_pods(vec![
        named_pod("z1", "1", "ztunnel", "n1"),
        named_pod("z2", "2", "ztunnel", "n2"),
        named_pod("here", "3", "cart", "n1"),
        named_pod("there", "4", "gate", "n2"),
    ]);
    let z1 = ("ztunnel", "z1", "1");
    assert_eq!(neighbour(&shop, z1, "cart"), Ok(()));
    let not_here = || Err(NodeProxyRefusal::NotOnNode { node: "n1".into() });
    assert_eq!(neighbour(&shop, z1, "gate"), not_here());
    assert_eq!(neighbour(&shop, z1, "nobody"), not_here());
    assert_eq!(neighbour(&shop, ("ztunnel", "z2", "2"), "gate"), Ok(()));
    assert_eq!(
        neighbour(&shop, ("ztunnel", "z3", "1"), "cart"),
        Err(NodeProxyRefusal::PodUnknown)
    );
    assert_eq!(
        neighbour(&shop, ("ztunnel", "z1", "9"), "cart"),
        Err(NodeProxyRefusal::PodReplaced)
    );
    assert_eq!(
        neighbour(&shop, ("cart", "z1", "1"), "cart"),
        Err(NodeProxyRefusal::OtherServiceAccount)
    );

    // On both nodes is on this one, too.
    shop.apply_pod(named_pod("also", "5", "gate", "n1"));
    assert_eq!(neighbour(&shop, z1, "gate"), Ok(()));
    shop.delete_pod(named_pod("also", "5", "gate", "n1"));
    assert_eq!(neighbour(&shop, z1, "gate"), not_here());

    let mut finished = named_pod("here", "3", "cart", "n1");
    finished.status = read(json!({ "phase": "Failed" }));
    shop.apply_pod(finished);
    assert_eq!(neighbour(&shop, z1, "cart"), not_here());

    let mut proxy = named_pod("z1", "1", "ztunnel", "n1");
    proxy.status = read(json!({ "phase": "Succeeded" }));
    shop.apply_pod(proxy);
    assert_eq!(
        neighbour(&shop, z1, "cart"),
        Err(NodeProxyRefusal::PodFinished)
    );
    let mut nowhere = named_pod("z1", "1", "ztunnel", "n1");
    nowhere.spec.node_name = None;
    shop.apply_pod(nowhere);
    assert_eq!(neighbour(&shop, z1, "cart"), Err(NodeProxyRefusal::NoNode));
}

/// A node may put images of its static pods into any namespace, as long as they name no service account.
#[test]
fn a_pod_that_runs_as_nobody_gives_a_node_proxy_no_name() {
    let mut shop = Workloads::default();
    let mut image = named_pod("image", "2", "", "n1");
    image.spec.service_account_name = None;
    shop.all_accounts(vec![account("default", "d")]);
    shop.all_pods(vec![named_pod("z1", "1", "ztunnel", "n1"), image]);
    assert_eq!(
        neighbour(&shop, ("ztunnel", "z1", "1"), "default"),
        Err(NodeProxyRefusal::NotOnNode { node: "n1".into() })
    );
    let pod = Pod {
        name: "image".into(),
        uid: "2".into(),
    };
    let default = ServiceAccount::new("shop", "default").unwrap();
    assert_eq!(
        shop.standing(&default, Some(&pod), &bound("d"), now()),
        Standing::Gone(Gone::OtherAccount)
    );
}

proptest! {
    /// However pods come, move and go: what is known is what a fresh list would give.
    #[test]
    fn news_one_by_one_are_as_good_as_a_list(
        news in proptest::collection::vec((0..4_u8, 0..6_u8, 0..3_u8, 0..3_u8, any::<bool>()), 0..60),
    ) {
        let mut followed = Workloads::default();
        let mut truth: HashMap<String, WatchedPod> = HashMap::new();
        for (name, uid, account, node, deleted) in news {
            let name = format!("p{name}");
            let pod = named_pod(&name, &format!("u{uid}"), &format!("a{account}"), &format!("n{node}"));
            if deleted {
                if let Some(pod) = truth.remove(&name) {
                    followed.delete_pod(pod);
                }
            } else {
                followed.apply_pod(pod.clone());
                truth.insert(name, pod);
            }
        }
        let mut listed = Workloads::default();
        listed.all_pods(truth.values().cloned().collect());
        prop_assert_eq!(&followed.nodes, &listed.nodes);
        prop_assert_eq!(followed.pod_count(), listed.pod_count());
        for pod in truth.values() {
            let name = pod.metadata.name.clone().unwrap();
            let entry = followed.pods.get("shop", &name).unwrap();
            prop_assert_eq!(&*entry.uid, pod.metadata.uid.as_deref().unwrap());
        }
    }
}
