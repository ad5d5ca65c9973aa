//! Kubeconfigs out of Secrets: who may write such a Secret must not be able to run programs here or to read our files.

use kube::Config;
use kube::config::{AuthInfo, Cluster, KubeConfigOptions, Kubeconfig, KubeconfigError};

/// Why a kubeconfig is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubeconfigRefused {
    /// Not text.
    #[error("not UTF-8")]
    NotText,
    /// Longer than any that is meant.
    #[error("longer than {} bytes", MAX_BYTES)]
    TooLong,
    /// Not a kubeconfig, or one that contradicts itself.
    #[error("not a kubeconfig: {0}")]
    Form(#[source] Box<KubeconfigError>),
    /// It has us run a program, read a file, or trust whoever answers.
    #[error("{field}: {why}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The server is not one that can be verified.
    #[error("server: it must start with https://")]
    NotEncrypted,
    /// The credentials cannot be used.
    #[error("its client cannot be made: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// Reads a kubeconfig that is complete in itself.
pub(super) async fn read(content: &[u8]) -> Result<Config, KubeconfigRefused> {
    let kubeconfig = screened(content)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|cause| KubeconfigRefused::Form(Box::new(cause)))
}

/// Every cluster and user in it, not only those in use: a context is easily changed.
fn screened(content: &[u8]) -> Result<Kubeconfig, KubeconfigRefused> {
    if content.len() > MAX_BYTES {
        return Err(KubeconfigRefused::TooLong);
    }
    let text = str::from_utf8(content).map_err(|_| KubeconfigRefused::NotText)?;
    let kubeconfig =
        Kubeconfig::from_yaml(text).map_err(|cause| KubeconfigRefused::Form(Box::new(cause)))?;
    let clusters = kubeconfig.clusters.iter();
    clusters
        .filter_map(|named| named.cluster.as_ref())
        .try_for_each(screen_cluster)?;
    let users = kubeconfig.auth_infos.iter();
    users
        .filter_map(|named| named.auth_info.as_ref())
        .try_for_each(screen_user)?;
    Ok(kubeconfig)
}

fn screen_cluster(cluster: &Cluster) -> Result<(), KubeconfigRefused> {
    let server = cluster.server.as_deref().unwrap_or_default();
    if !server.starts_with("https://") {
        return Err(KubeconfigRefused::NotEncrypted);
    }
    absent(
        "certificate-authority",
        READS_A_FILE,
        cluster.certificate_authority.as_ref(),
    )?;
    absent(
        "insecure-skip-tls-verify",
        "whoever is on the way could vouch for anybody",
        cluster
            .insecure_skip_tls_verify
            .filter(|skip| *skip)
            .as_ref(),
    )?;
    absent(
        "proxy-url",
        "proxies are not supported",
        cluster.proxy_url.as_ref(),
    )
}

fn screen_user(user: &AuthInfo) -> Result<(), KubeconfigRefused> {
    absent("exec", "it would run a program", user.exec.as_ref())?;
    absent(
        "auth-provider",
        "it would run a program",
        user.auth_provider.as_ref(),
    )?;
    absent("tokenFile", READS_A_FILE, user.token_file.as_ref())?;
    absent(
        "client-certificate",
        READS_A_FILE,
        user.client_certificate.as_ref(),
    )?;
    absent("client-key", READS_A_FILE, user.client_key.as_ref())
}

fn absent<T>(
    field: &'static str,
    why: &'static str,
    value: Option<&T>,
) -> Result<(), KubeconfigRefused> {
    match value {
        None => Ok(()),
        Some(_) => Err(KubeconfigRefused::Field { field, why }),
    }
}

const READS_A_FILE: &str = "it would read a file; put the data in its place";
/// A kubeconfig of several clusters has some kilobytes.
const MAX_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
apiVersion: v1
kind: Config
current-context: eu
clusters:
- name: eu
  cluster:
    server: https://10.0.0.1:6443
users:
- name: ca
  user:
    token: not-a-real-token
contexts:
- name: eu
  context: { cluster: eu, user: ca }
"#;

    fn refusal(text: &str) -> String {
        screened(text.as_bytes()).unwrap_err().to_string()
    }

    #[tokio::test]
    async fn one_that_is_complete_in_itself_is_used() {
        let config = read(GOOD.as_bytes()).await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://10.0.0.1:6443/");
    }

    #[test]
    fn nothing_in_it_runs_a_program_reads_a_file_or_trusts_whoever_answers() {
        let user = |field: &str| GOOD.replace("token: not-a-real-token", field);
        let cluster = |field: &str| {
            GOOD.replace(
                "https://10.0.0.1:6443",
                &format!("https://10.0.0.1:6443\n    {field}"),
            )
        };
        for (text, reason) in [
            (
                user("exec: { command: /bin/sh }"),
                "exec: it would run a program",
            ),
            (
                user("auth-provider: { name: gcp }"),
                "auth-provider: it would run a program",
            ),
            (
                user("tokenFile: /etc/passwd"),
                "tokenFile: it would read a file; put the data in its place",
            ),
            (
                user("client-certificate: /a"),
                "client-certificate: it would read a file; put the data in its place",
            ),
            (
                user("client-key: /a"),
                "client-key: it would read a file; put the data in its place",
            ),
            (
                cluster("certificate-authority: /a"),
                "certificate-authority: it would read a file; put the data in its place",
            ),
            (
                cluster("insecure-skip-tls-verify: true"),
                "insecure-skip-tls-verify: whoever is on the way could vouch for anybody",
            ),
            (
                cluster("proxy-url: http://proxy"),
                "proxy-url: proxies are not supported",
            ),
            (
                GOOD.replace("https:", "http:"),
                "server: it must start with https://",
            ),
            (
                GOOD.replace("server:", "sever:"),
                "server: it must start with https://",
            ),
        ] {
            assert_eq!(refusal(&text), reason, "{text}");
        }
        assert!(screened(cluster("insecure-skip-tls-verify: false").as_bytes()).is_ok());
        // Also where it is not in use, and in a second document.
        let second =
            format!("{GOOD}---\nusers:\n- name: other\n  user: {{ exec: {{ command: sh }} }}\n");
        assert_eq!(refusal(&second), "exec: it would run a program");
    }

    #[tokio::test]
    async fn what_is_no_kubeconfig_is_refused() {
        for bad in [&b"\xff"[..], b"just text", b"clusters: 7", b""] {
            assert!(read(bad).await.is_err(), "{bad:?}");
        }
        let long = vec![b' '; MAX_BYTES + 1];
        assert!(matches!(screened(&long), Err(KubeconfigRefused::TooLong)));
    }
}
