//! What is meant about the CA's Secret, about who leads, and about where in the cluster roots are published.

use kube::core::Selector;

use crate::args::ClusterRootsArgs;
use crate::controllers::{SelectorError, parse_selector};

/// The CA in the cluster, and its roots.
#[derive(Debug)]
pub(crate) struct ClusterRoots {
    pub(crate) cacerts_for_self_signed_ca: bool,
    pub(crate) lease_name: String,
    pub(crate) pod_name: String,
    pub(crate) publish: Publish,
}

/// Where roots go.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    pub(crate) roots: Option<RootObjects>,
    pub(crate) webhooks: Webhooks,
}

/// What holds the roots.
#[derive(Clone, Debug)]
pub(crate) enum RootObjects {
    ConfigMaps(ConfigMaps),
    ClusterTrustBundle,
}

/// In every selected namespace.
#[derive(Clone, Debug)]
pub(crate) struct ConfigMaps {
    pub(crate) roots: String,
    /// `None`: revocation lists are not published.
    pub(crate) crl: Option<String>,
    /// One that fits is enough; none at all: every namespace.
    pub(crate) namespaces: Vec<Selector>,
}

/// Webhook configurations whose `caBundle` we keep.
#[derive(Clone, Debug, Default)]
pub(crate) struct Webhooks {
    pub(crate) mutating: Vec<String>,
    pub(crate) validating: Vec<String>,
    /// Of either kind.
    pub(crate) labelled: Option<Selector>,
}

impl ClusterRoots {
    pub(super) fn new(args: ClusterRootsArgs) -> Result<Self, SelectorError> {
        let namespaces = args.configmap_namespace_selector.iter();
        let namespaces = namespaces
            .map(|text| parse_selector(text))
            .collect::<Result<_, _>>()?;
        let objects = match args.cluster_trust_bundle {
            true => RootObjects::ClusterTrustBundle,
            false => RootObjects::ConfigMaps(ConfigMaps {
                roots: args.root_config_map,
                crl: Some(args.crl_config_map).filter(|_| args.publish_crl),
                namespaces,
            }),
        };
        let labelled = args.webhook_config_selector.as_deref();
        let pod_name = args.pod_name.filter(|name| !name.is_empty());
        Ok(Self {
            cacerts_for_self_signed_ca: args.cacerts_for_self_signed_ca,
            lease_name: args.lease_name,
            pod_name: pod_name.unwrap_or_else(|| "ca-server".into()),
            publish: Publish {
                roots: Some(objects).filter(|_| args.publish_roots),
                webhooks: Webhooks {
                    mutating: args.mutating_webhook_config,
                    validating: args.validating_webhook_config,
                    labelled: labelled.map(parse_selector).transpose()?,
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        args: ClusterRootsArgs,
    }

    fn read(flags: &[&str]) -> Result<ClusterRoots, SelectorError> {
        let typed = Typed::try_parse_from(["ca-server"].iter().chain(flags)).unwrap();
        ClusterRoots::new(typed.args)
    }

    #[test]
    fn istios_names_are_the_defaults_and_the_bundle_takes_the_place_of_the_maps() {
        let roots = read(&[]).unwrap();
        let Some(RootObjects::ConfigMaps(maps)) = roots.publish.roots else {
            panic!("no ConfigMaps");
        };
        assert_eq!(
            (maps.roots.as_str(), maps.crl.as_deref()),
            ("istio-ca-root-cert", Some("istio-ca-crl"))
        );
        assert!(maps.namespaces.is_empty());
        let bundle = read(&["--cluster-trust-bundle", "true"]).unwrap();
        assert!(matches!(
            bundle.publish.roots,
            Some(RootObjects::ClusterTrustBundle)
        ));
        let nothing = read(&["--publish-roots", "false"]).unwrap();
        assert!(nothing.publish.roots.is_none());
    }

    #[test]
    fn a_selector_that_is_none_is_refused() {
        for flag in [
            "--configmap-namespace-selector",
            "--webhook-config-selector",
        ] {
            assert_eq!(read(&[flag, "a b"]).unwrap_err().part, "a b");
        }
    }
}
