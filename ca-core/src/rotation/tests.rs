use super::*;
use crate::bundle::BundleStore;
use crate::certificate::CertificateChain;
use crate::crypto::RING;
use crate::local::LocalAuthority;
use crate::testing::{TestCa, now};

const DAY: Duration = Duration::from_secs(24 * 3600);
const SPREAD: Duration = Duration::from_secs(3600);
const DRAIN: Duration = Duration::from_secs(7200);

fn params() -> RootParams {
    RootParams::new("cluster.local", 10 * DAY)
}

fn state() -> AuthorityState {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let root = params().self_sign(&key, now()).unwrap();
    let roots = TrustBundle::new([root.clone()]).unwrap();
    AuthorityState::new(key, CertificateChain::new(root, []), roots)
}

fn replace() -> RotationPolicy {
    let method = Method::Replace {
        spread: SPREAD,
        drain: DRAIN,
    };
    RotationPolicy::new(SPREAD, 20, FirstCheck::Spread, method).unwrap()
}

fn prepare(state: &AuthorityState, at: OffsetDateTime) -> AuthorityState {
    state
        .prepare(&params(), KeyKind::EcdsaP256, &RING, at)
        .unwrap()
}

fn leaf_of(state: &AuthorityState, at: OffsetDateTime) -> CertificateChain {
    let authority = LocalAuthority::new(BundleStore::new(state.bundle(at).unwrap()));
    let names = vec!["spiffe://cluster.local/ns/a/sa/b".parse().unwrap()];
    authority
        .issue_with_new_key(names, DAY, at)
        .unwrap()
        .1
        .chain()
        .clone()
}

#[test]
fn nobody_is_cut_off_at_any_stage_of_a_replacement() {
    let at = now();
    let steady = state();
    let prepared = prepare(&steady, at);
    let activated = prepared.activate(at).unwrap();
    let retired = activated.retire().unwrap();
    let stages = [&steady, &prepared, &activated, &retired];
    assert_eq!(
        stages.map(|s| s.rotation().name()),
        ["steady", "prepared", "activated", "steady"]
    );
    assert_eq!(stages.map(|s| s.roots().certificates().len()), [1, 2, 2, 1]);
    // A workload of one stage and a workload of the next trust each other, in both directions; only certificates of the
    // old root end with the last step, and by then there are none.
    for (step, pair) in stages.windows(2).enumerate() {
        let (before, after) = (leaf_of(pair[0], at), leaf_of(pair[1], at));
        before
            .verify(pair[1].roots(), at)
            .unwrap_or_else(|e| panic!("step {step}: {e}"));
        after.verify(pair[0].roots(), at).unwrap();
        after.verify(pair[1].roots(), at).unwrap();
        // And each step is one that a running CA accepts.
        let store = BundleStore::new(pair[0].bundle(at).unwrap());
        store.succeed(pair[1].bundle(at).unwrap()).unwrap();
    }
    // Only the last step drops the old root, and it drops all of it.
    assert!(leaf_of(&steady, at).verify(activated.roots(), at).is_ok());
    assert!(leaf_of(&steady, at).verify(retired.roots(), at).is_err());
    assert_ne!(steady.key().pkcs8_der(), retired.key().pkcs8_der());
}

#[test]
fn a_renewed_root_has_the_same_key_and_name_and_both_certificates_hold_both_ways() {
    let old = state();
    let later = now() + 5 * DAY;
    let renewed = old.renew(&params(), later).unwrap();
    let (old_root, new_root) = (old.signing_certificate(), renewed.signing_certificate());
    assert_eq!(new_root.subject_der(), old_root.subject_der());
    assert_eq!(new_root.public_key(), old_root.public_key());
    assert_eq!(new_root.key_identifier(), old_root.key_identifier());
    assert!(new_root.not_after() > old_root.not_after());
    assert_eq!(renewed.roots().certificates()[0], *new_root);
    for (leaf, roots) in [
        (leaf_of(&old, later), renewed.roots()),
        (leaf_of(&renewed, later), old.roots()),
        (
            leaf_of(&old, later),
            &TrustBundle::new([new_root.clone()]).unwrap(),
        ),
    ] {
        leaf.verify(roots, later).unwrap();
    }
    // The old certificate goes when it is over.
    let end = old_root.not_after() + Duration::from_secs(1);
    assert_eq!(
        renewed
            .renew(&params(), end)
            .unwrap()
            .roots()
            .certificates()
            .len(),
        2
    );
    assert!(
        !renewed
            .renew(&params(), end)
            .unwrap()
            .roots()
            .contains(old_root)
    );
}

#[test]
fn steps_out_of_order_are_refused_by_name() {
    let at = now();
    let steady = state();
    let prepared = prepare(&steady, at);
    let activated = prepared.activate(at).unwrap();
    let told = |result: Result<AuthorityState, RotationError>| result.unwrap_err().to_string();
    assert_eq!(
        told(steady.activate(at)),
        "the rotation is steady, not prepared"
    );
    assert_eq!(
        told(steady.retire()),
        "the rotation is steady, not activated"
    );
    assert_eq!(
        told(steady.abandon()),
        "the rotation is steady, not prepared"
    );
    assert_eq!(
        told(prepared.retire()),
        "the rotation is prepared, not activated"
    );
    assert_eq!(
        told(prepared.prepare(&params(), KeyKind::EcdsaP256, &RING, at)),
        "the rotation is prepared, not steady"
    );
    assert_eq!(
        told(activated.activate(at)),
        "the rotation is activated, not prepared"
    );
    assert_eq!(
        told(activated.renew(&params(), at)),
        "the rotation is activated, not steady"
    );
    let abandoned = prepared.abandon().unwrap();
    assert_eq!(abandoned.roots(), steady.roots());
}

#[test]
fn a_ca_below_another_does_not_touch_the_root() {
    let root = TestCa::new("cluster.local");
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let csr = crate::create_csr_pem(&key, &[]).unwrap();
    let request = crate::CaRequest::new(
        crate::Csr::from_pem(csr.as_bytes()).unwrap(),
        "td",
        "below",
        DAY / 2,
    );
    let issued = root.authority().issue_ca(&request, now()).unwrap();
    let state = AuthorityState::new(key, issued.chain().clone(), issued.roots().clone());
    assert!(matches!(
        state.renew(&params(), now()),
        Err(RotationError::NotSelfSigned)
    ));
    let prepared = state.prepare(&params(), KeyKind::EcdsaP256, &RING, now());
    assert!(matches!(prepared, Err(RotationError::NotSelfSigned)));
}

#[test]
fn it_acts_in_the_last_fifth_and_not_at_its_first_second() {
    let state = state();
    let root = state.signing_certificate();
    let lifetime = root.not_after() - root.not_before();
    let threshold = root.not_after() - lifetime / 5;
    let second = Duration::from_secs(1);
    for policy in [RotationPolicy::default(), replace()] {
        let acts = match policy.method {
            Method::Renew => RotationAction::Renew,
            Method::Replace { .. } => RotationAction::Prepare,
        };
        assert_eq!(
            policy.action(&state, root.not_before()),
            RotationAction::Wait
        );
        assert_eq!(
            policy.action(&state, threshold),
            RotationAction::Wait,
            "exactly at the threshold"
        );
        assert_eq!(policy.action(&state, threshold + second), acts);
        assert_eq!(
            policy.action(&state, root.not_after() + DAY),
            acts,
            "expired"
        );
        assert_eq!(
            policy.action(&state, root.not_before() - DAY),
            RotationAction::Wait,
            "a clock far behind"
        );
    }
}

#[test]
fn stages_wait_their_time_and_a_clock_set_back_only_makes_them_wait_longer() {
    let at = now();
    let policy = replace();
    let second = Duration::from_secs(1);
    let prepared = prepare(&state(), at);
    assert_eq!(policy.action(&prepared, at), RotationAction::Wait);
    assert_eq!(
        policy.action(&prepared, at + SPREAD - second),
        RotationAction::Wait
    );
    assert_eq!(policy.action(&prepared, at - DAY), RotationAction::Wait);
    assert_eq!(
        policy.action(&prepared, at + SPREAD),
        RotationAction::Activate
    );
    let at = at + SPREAD;
    let activated = prepared.activate(at).unwrap();
    assert_eq!(policy.action(&activated, at), RotationAction::Wait);
    assert_eq!(policy.action(&activated, at - DAY), RotationAction::Wait);
    assert_eq!(
        policy.action(&activated, at + DRAIN - second),
        RotationAction::Wait
    );
    assert_eq!(
        policy.action(&activated, at + DRAIN),
        RotationAction::Retire
    );
    // An old root that is over needs no more patience.
    let endless = Method::Replace {
        spread: 1000 * DAY,
        drain: 1000 * DAY,
    };
    let patient = RotationPolicy::new(SPREAD, 20, FirstCheck::Spread, endless).unwrap();
    assert_eq!(
        patient.action(&prepared, at + 11 * DAY),
        RotationAction::Activate
    );
    assert_eq!(
        patient.action(&activated, at + 11 * DAY),
        RotationAction::Retire
    );
    // With the same-key method the stages are an operator's.
    assert_eq!(
        RotationPolicy::default().action(&prepared, at + DAY),
        RotationAction::Wait
    );
}

#[test]
fn driven_by_its_policy_alone_a_ca_lives_through_many_roots_without_a_gap() {
    use RotationAction::{Activate, Prepare, Retire};

    let policy = replace();
    let mut state = state();
    let mut at = now();
    let (mut actions, mut workloads) =
        (Vec::new(), Vec::<(OffsetDateTime, CertificateChain)>::new());
    // Forty days of roots that live ten, looked at every hour; leaves of an hour, which the drain covers.
    for _ in 0..40 * 24 {
        at += SPREAD;
        let action = policy.action(&state, at);
        state = match action {
            RotationAction::Wait => state,
            Prepare => prepare(&state, at),
            Activate => state.activate(at).unwrap(),
            Retire => state.retire().unwrap(),
            RotationAction::Renew => panic!("not asked for"),
        };
        if action != RotationAction::Wait {
            actions.push(action);
        }
        let authority = LocalAuthority::new(BundleStore::new(state.bundle(at).unwrap()));
        let names = vec!["spiffe://cluster.local/ns/a/sa/b".parse().unwrap()];
        let chain = authority
            .issue_with_new_key(names, SPREAD, at)
            .unwrap()
            .1
            .chain()
            .clone();
        workloads.push((at + SPREAD, chain));
        workloads.retain(|(end, _)| *end >= at);
        for (_, chain) in &workloads {
            chain.verify(state.roots(), at).unwrap();
        }
    }
    // Four roots at least; the last replacement may still be under way.
    assert!(actions.len() >= 12, "{actions:?}");
    let order = [Prepare, Activate, Retire].into_iter().cycle();
    assert!(
        actions.iter().copied().eq(order.take(actions.len())),
        "{actions:?}"
    );
}

#[test]
fn first_looks_are_spread_in_whole_seconds() {
    let spread = RotationPolicy::default();
    assert_eq!(spread.first_check(0.0), Duration::ZERO);
    assert_eq!(spread.first_check(0.5), Duration::from_secs(1800));
    assert_eq!(spread.first_check(0.999_999), Duration::from_secs(3599));
    let method = Method::Renew;
    let later = RotationPolicy::new(SPREAD, 20, FirstCheck::AfterInterval, method).unwrap();
    assert_eq!(later.first_check(0.1), SPREAD);
    assert!(RotationPolicy::new(Duration::ZERO, 20, FirstCheck::Spread, method).is_err());
    assert!(RotationPolicy::new(SPREAD, 101, FirstCheck::Spread, method).is_err());
}

#[test]
fn a_state_comes_back_from_its_files_at_every_stage() {
    let at = now();
    let steady = state();
    let prepared = prepare(&steady, at);
    let activated = prepared.activate(at).unwrap();
    for state in [&steady, &prepared, &activated] {
        let files = state.to_files();
        let read = |name: &str| {
            let file = files.iter().find(|(n, _)| *n == name);
            file.map(|(_, text)| zeroize::Zeroizing::new(text.as_bytes().to_vec()))
        };
        let back = AuthorityState::from_files(read, &RING).unwrap();
        assert_eq!(back.to_files(), files);
        back.bundle(at).unwrap();
        // Each file is needed, except the one that says that there is a rotation.
        for missing in files
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| *name != "rotation")
        {
            let error = AuthorityState::from_files(|n| read(n).filter(|_| n != missing), &RING)
                .unwrap_err();
            assert_eq!((error.name, error.cause.as_str()), (missing, "missing"));
        }
    }
    let bad = AuthorityState::from_files(
        |name| match name {
            "rotation" => Some(zeroize::Zeroizing::new(b"halfway 12".to_vec())),
            name => steady
                .to_files()
                .into_iter()
                .find(|(n, _)| *n == name)
                .map(|(_, t)| zeroize::Zeroizing::new(t.as_bytes().to_vec())),
        },
        &RING,
    );
    assert_eq!(bad.unwrap_err().name, "rotation");
}

#[test]
fn what_comes_next_is_what_will_be_done_and_not_before() {
    let (at, second) = (now(), Duration::from_secs(1));
    let renew = RotationPolicy::default();
    let steady = state();
    let prepared = prepare(&steady, at);
    let activated = prepared.activate(at).unwrap();
    for (policy, state) in [
        (renew, &steady),
        (replace(), &steady),
        (replace(), &prepared),
        (replace(), &activated),
    ] {
        let (step, from) = policy.next(state).unwrap();
        assert_eq!(policy.action(state, from - second), RotationAction::Wait);
        assert_eq!(policy.action(state, from + second), step);
    }
    assert_eq!(renew.next(&prepared), None, "it is an operator's");
}
