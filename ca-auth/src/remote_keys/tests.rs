use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;
use crate::issuer_keys::IssuerKeysError;
use crate::local_issuer::LocalIssuer;

/// An issuer that answers what it was told to, the last answer again and again.
#[derive(Clone)]
struct Scripted {
    answers: Arc<Mutex<VecDeque<Option<IssuerKeys>>>>,
    asked: Arc<AtomicUsize>,
    /// One permit for each answer that may be given.
    gate: Arc<Semaphore>,
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = Option<IssuerKeys>>) -> Self {
        Self {
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            asked: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    fn start(&self) -> RemoteKeys {
        let script = self.clone();
        let fetch = move || -> Fetched {
            script.asked.fetch_add(1, Ordering::SeqCst);
            let script = script.clone();
            Box::pin(async move {
                script.gate.acquire().await.unwrap().forget();
                let mut answers = script.answers.lock().unwrap();
                let answer = if answers.len() > 1 {
                    answers.pop_front().unwrap()
                } else {
                    answers[0].clone()
                };
                answer.ok_or_else(|| {
                    let cause = IssuerKeysError::Empty;
                    format!("https://issuer.example/keys: {cause}").into()
                })
            })
        };
        RemoteKeys::start_with("issuer".into(), fetch, KeySchedule::default())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn keys() -> IssuerKeys {
    LocalIssuer::generate().unwrap().keys()
}

const COOLDOWN: Duration = Duration::from_secs(10);
const REFRESH: Duration = Duration::from_secs(5 * 60);
const MAX_AGE: Duration = Duration::from_secs(4 * 3600);

#[tokio::test(start_paused = true)]
async fn the_first_token_waits_for_the_first_answer_and_later_ones_do_not() {
    let first = keys();
    let issuer = Scripted::new([Some(first.clone())]);
    let remote = issuer.start();
    assert!(remote.current().await.unwrap().is_same(&first));
    for _ in 0..3 {
        assert!(remote.current().await.unwrap().is_same(&first));
    }
    assert_eq!(issuer.asked(), 1);
    assert_eq!(remote.status().failure, None);
    assert_eq!(remote.status().fingerprints.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_again_from_time_to_time() {
    let (first, second) = (keys(), keys());
    let issuer = Scripted::new([Some(first.clone()), Some(second.clone())]);
    let remote = issuer.start();
    assert!(remote.current().await.unwrap().is_same(&first));
    tokio::time::sleep(REFRESH * 8 / 10).await;
    assert!(remote.current().await.unwrap().is_same(&first));
    tokio::time::sleep(REFRESH * 4 / 10).await;
    assert!(remote.current().await.unwrap().is_same(&second));
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_makes_one_request_however_many_tokens_show_it() {
    let (first, second) = (keys(), keys());
    let issuer = Scripted::new([Some(first.clone()), Some(second.clone())]);
    let remote = Arc::new(issuer.start());
    let known = remote.current().await.unwrap();

    // A moment after an answer the issuer has nothing newer to say.
    assert!(remote.newer(&known).await.unwrap().is_none());
    assert_eq!(issuer.asked(), 1);

    tokio::time::sleep(COOLDOWN).await;
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (remote, known) = (Arc::clone(&remote), known.clone());
            tokio::spawn(async move { remote.newer(&known).await })
        })
        .collect();
    for newer in waiting {
        assert!(newer.await.unwrap().unwrap().unwrap().is_same(&second));
    }
    assert_eq!(issuer.asked(), 2);

    // Made-up tokens do not make us ask more often.
    for _ in 0..100 {
        assert!(remote.newer(&second).await.unwrap().is_none());
    }
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn while_the_issuer_is_down_its_last_answer_is_good_for_a_while() {
    let first = keys();
    let issuer = Scripted::new([Some(first.clone()), None]);
    let remote = issuer.start();
    let known = remote.current().await.unwrap();

    tokio::time::sleep(REFRESH * 2).await;
    assert!(remote.current().await.unwrap().is_same(&first));
    assert!(remote.status().failure.is_some());
    // Whether a key that is not known exists cannot be told.
    let error = remote.newer(&known).await.unwrap_err().to_string();
    let expected = "keys of issuer: https://issuer.example/keys: no issuer keys: the text is empty";
    assert_eq!(error, expected);

    tokio::time::sleep(MAX_AGE).await;
    let error = remote.current().await.unwrap_err().to_string();
    assert!(
        error.starts_with("keys of issuer: the last ones are 4h"),
        "{error}"
    );
    // Asked with growing distance, not for each token.
    let asked = issuer.asked();
    for _ in 0..100 {
        assert!(remote.current().await.is_err());
    }
    assert!(issuer.asked() <= asked + 1);
    assert!((40..80).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_comes_back_is_used_at_once() {
    let first = keys();
    let issuer = Scripted::new([None, Some(first.clone())]);
    let remote = issuer.start();
    assert!(remote.current().await.is_err());
    assert!(remote.current().await.is_err(), "asked a moment ago");
    assert_eq!(issuer.asked(), 1);
    tokio::time::sleep(COOLDOWN).await;
    assert!(remote.current().await.unwrap().is_same(&first));
    assert_eq!(remote.status().failure, None);
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_when_nobody_listens() {
    let issuer = Scripted::new([Some(keys())]);
    let remote = issuer.start();
    remote.current().await.unwrap();
    drop(remote);
    tokio::time::sleep(REFRESH * 10).await;
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_under_way_answers_those_who_come_meanwhile() {
    let first = keys();
    let mut issuer = Scripted::new([Some(first.clone())]);
    issuer.gate = Arc::new(Semaphore::new(0));
    let remote = Arc::new(issuer.start());
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let remote = Arc::clone(&remote);
            tokio::spawn(async move { remote.current().await })
        })
        .collect();
    tokio::task::yield_now().await;
    issuer.gate.add_permits(1);
    for current in waiting {
        assert!(current.await.unwrap().unwrap().is_same(&first));
    }
    assert_eq!(issuer.asked(), 1);
}
