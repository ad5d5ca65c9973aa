//! Certificates by hand: a request in a folder, and what somebody puts beside it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use ca_core::{
    Csr, SubjectName,
    testing::{TestCa, now},
};

use crate::{
    agent::{Agent, Home, checked_chain, soon},
    rest::certify,
};

const HOUR: Duration = Duration::from_secs(3600);

/// The person with the CA.
struct Person {
    ca: TestCa,
    folder: PathBuf,
}

impl Person {
    /// Waits for a request for another key than the one of `last`.
    async fn request(&self, last: Option<&Csr>) -> Csr {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        let coming = async {
            loop {
                ticks.tick().await;
                let text = fs::read(self.folder.join("workload.csr")).unwrap_or_default();
                match Csr::from_pem(&text) {
                    Ok(csr) if last.is_none_or(|last| last.public_key() != csr.public_key()) => {
                        return csr;
                    }
                    _ => {}
                }
            }
        };
        soon("a request", coming).await
    }

    fn put(&self, name: &str, contents: &str) {
        let new = self.folder.join("carried");
        fs::write(&new, contents).unwrap();
        fs::rename(new, self.folder.join(name)).unwrap();
    }

    fn sign(&self, csr: &Csr, lifetime: Duration) {
        let (leaf, roots) = certify(&self.ca, &csr.to_pem(), lifetime);
        self.put("root-cert.pem", roots.to_pem());
        self.put("cert-chain.pem", &leaf);
    }
}

fn start(home: Home, more: &[&str]) -> (Person, Agent) {
    let ca = TestCa::new("cluster.local");
    let folder = home.path("drop");
    let address = format!("file:{}", folder.display());
    let mut flags = vec!["--ca-addr", &address];
    flags.extend(more);
    let agent = Agent::start_with(home, &flags);
    (Person { ca, folder }, agent)
}

fn home() -> Home {
    Home::with(&TestCa::new("cluster.local").roots(), "")
}

#[tokio::test]
async fn a_certificate_that_somebody_brings_is_served_and_the_next_one_asked_for() {
    let (person, agent) = start(home(), &[]);
    let mut pair = agent.subscribe(&["default"]).await;
    let csr = person.request(None).await;
    let request = person.folder.join("workload.csr");
    let mode = fs::metadata(request).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let waits = "waiting for cert-chain.pem and root-cert.pem in";
    agent
        .becomes("/readyz", |_, body| body.contains(waits))
        .await;

    person.sign(&csr, Duration::from_secs(6));
    let first = checked_chain(&pair.accept().await[0], &person.ca.roots());
    // Half of its life later the next key wants a certificate, and the old one is still good.
    let next = person.request(Some(&csr)).await;
    let waits = "waiting for a new cert-chain.pem in";
    let body = agent
        .becomes("/readyz", |_, body| body.contains(waits))
        .await;
    assert!(body.starts_with("certificate until"), "{body}");
    person.sign(&next, HOUR);
    assert_ne!(
        checked_chain(&pair.accept().await[0], &person.ca.roots()),
        first
    );
    let names = fs::read_dir(&person.folder).unwrap().count();
    assert_eq!(names, 3, "no key lies there");
}

#[tokio::test]
async fn wrong_certificates_are_refused_with_a_reason_and_the_request_stays() {
    let (person, agent) = start(home(), &[]);
    let mut pair = agent.subscribe(&["default"]).await;
    let csr = person.request(None).await;
    let refused = async |reason: &str| {
        agent
            .becomes("/readyz", |_, body| body.contains(reason))
            .await;
    };
    person.put("root-cert.pem", &person.ca.root_pem());
    refused("waiting for cert-chain.pem in").await;
    person.put("cert-chain.pem", "garbage");
    refused("cert-chain.pem is refused").await;
    let other = person.ca.workload("shop", "cart").1.to_pem();
    person.put("cert-chain.pem", &other);
    refused("it is not for the key of workload.csr").await;
    let admin = SubjectName::from(person.ca.id("shop", "admin"));
    let admin = person.ca.issue(&csr, &[admin], HOUR, now());
    person.put("cert-chain.pem", &admin.chain().to_pem());
    refused("sa/admin").await;
    person.put("root-cert.pem", &TestCa::new("cluster.local").root_pem());
    person.sign(&csr, HOUR);
    checked_chain(&pair.accept().await[0], &person.ca.roots());
}

#[tokio::test]
async fn kept_keys_survive_restarts_of_the_agent() {
    let flags = ["--drop-keep-keys"];
    let (person, agent) = start(home(), &flags);
    let csr = person.request(None).await;
    let home = agent.stop().await;

    let (_, agent) = start(home, &flags);
    person.sign(&csr, HOUR);
    let mut pair = agent.subscribe(&["default"]).await;
    let first = checked_chain(&pair.accept().await[0], &person.ca.roots());
    // The next request is on its way when the agent goes again.
    agent.renew();
    let next = person.request(Some(&csr)).await;
    let home = agent.stop().await;

    let (_, agent) = start(home, &flags);
    let mut pair = agent.subscribe(&["default"]).await;
    let again = checked_chain(&pair.accept().await[0], &person.ca.roots());
    assert_eq!(again, first, "at once, because all is there");
    agent.renew();
    person.sign(&next, HOUR);
    assert_ne!(
        checked_chain(&pair.accept().await[0], &person.ca.roots()),
        first
    );
    for name in ["workload.key", "workload-next.key"] {
        let key = fs::metadata(person.folder.join(name));
        if let Ok(key) = key {
            assert_eq!(key.permissions().mode() & 0o777, 0o600, "{name}");
        }
    }
}

#[tokio::test]
async fn without_kept_keys_a_restart_asks_anew_and_says_why_the_old_answer_will_not_do() {
    let (person, agent) = start(home(), &[]);
    let csr = person.request(None).await;
    person.sign(&csr, HOUR);
    agent.becomes("/readyz", |status, _| status == 200).await;
    let home = agent.stop().await;
    let (_, agent) = start(home, &[]);
    let next = person.request(Some(&csr)).await;
    let reason = "it is not for the key of workload.csr";
    agent
        .becomes("/readyz", |_, body| body.contains(reason))
        .await;
    person.sign(&next, HOUR);
    agent.becomes("/readyz", |status, _| status == 200).await;
}
