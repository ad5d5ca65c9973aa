//! `ca-server config`: what is in force, and whether a server would start with it.

use std::sync::Arc;

use ca_ra::{IstioUpstream, UpstreamConfig, UpstreamError};

use crate::app::AppError;
use crate::args::Args;
use crate::authentication;
use crate::authority::registration::{self, RegistrationError};
use crate::authority::{plugged, upstream};
use crate::config::{Config, SignerConfig, UpstreamSource, Whose};

/// Fails if a value cannot be meant, or a file that is named keeps a server from starting. **What only a start can tell is not looked
/// at**: addresses, folders that are written to, the audit log, the cluster, and what another CA says.
pub(super) fn check(args: Args) -> anyhow::Result<()> {
    let config = Config::try_from(args)?;
    // Whoever follows a file needs a runtime, also where that is over at once.
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let _inside = runtime.enter();
    Ok(check_files(config)?)
}

/// In the order of a start, by what reads them there.
fn check_files(config: Config) -> Result<(), AppError> {
    authentication::authorizer(config.authentication.policy.as_ref(), &config.trust_domain)?;
    let we_keep_ours_there = config.keeps_own_ca_in_cacerts();
    match config.whose {
        Whose::Own(above) => {
            let plugged = plugged::follow_operators(&config.root_ca_dir, we_keep_ours_there)?;
            match above.map(|above| above.source) {
                Some(_) if plugged.is_some() => return Err(AppError::TwoCas(config.root_ca_dir)),
                Some(UpstreamSource::Ask(above)) => {
                    follow_upstream(above).map_err(upstream::OpenError::from)?;
                }
                Some(UpstreamSource::Drop(_)) | None => {}
            }
        }
        Whose::Signers(signers) => match signers.signer {
            SignerConfig::KubernetesCsr { roots, .. } | SignerConfig::CertManager { roots, .. } => {
                registration::follow(&roots)?;
            }
            SignerConfig::Istio(signer) => follow_upstream(signer)
                .map_err(|cause| RegistrationError::Upstream(Box::new(cause)))?,
        },
    }
    if let Some(signer) = &config.listener_signer {
        registration::follow(&signer.roots)?;
    }
    config.serving.plan.check_files()?;
    Ok(())
}

/// Asks nothing.
fn follow_upstream(config: UpstreamConfig) -> Result<(), UpstreamError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    IstioUpstream::new(config, provider).map(drop)
}
