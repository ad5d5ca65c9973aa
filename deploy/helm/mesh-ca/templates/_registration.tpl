{{- define "mesh-ca.hasRoots" -}}
{{- with .Values.registration.roots -}}
{{- if or .configMap .secret -}}yes{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The flags for whoever signs. */ -}}
{{- define "mesh-ca.registrationArgs" -}}
{{- $registration := .Values.registration -}}
{{- if eq $registration.signer "cert-manager" -}}
{{- with $registration.certManager -}}
- --external-ca=cert-manager
- --certificate-namespace={{ .namespace }}
- --approve-requests={{ .approve }}
- --preserve-certificate-requests={{ .preserveRequests }}
- --issuer-enabled={{ .issuer.enabled }}
{{- if .issuer.enabled }}
- --issuer-name={{ .issuer.name }}
- --issuer-kind={{ .issuer.kind }}
- --issuer-group={{ .issuer.group }}
{{- end }}
{{- if .runtimeConfigMap.name }}
- --runtime-issuance-config-map-name={{ .runtimeConfigMap.name }}
- --runtime-issuance-config-map-namespace={{ .runtimeConfigMap.namespace }}
{{- end }}
{{- with .maxDuration }}
- --max-client-certificate-duration={{ . }}
{{- end }}
{{- range $key, $value := .additionalAnnotations }}
- {{ printf "--certificate-request-additional-annotations=%s=%s" $key $value | quote }}
{{- end }}
{{- end }}
{{- else if eq $registration.signer "kubernetes" -}}
{{- with $registration.kubernetes -}}
- --external-ca=ISTIOD_RA_KUBERNETES_API
- --approve-requests={{ .approve }}
{{- with .signerName }}
- --k8s-signer={{ . }}
{{- end }}
{{- with .signerDomain }}
- --cert-signer-domain={{ . }}
{{- end }}
{{- end }}
{{- else if eq $registration.signer "istio" -}}
- --external-ca=ISTIOD_RA_ISTIO_API
- --upstream-ca-addr={{ required "registration.istio.address is needed" $registration.istio.address }}
- --upstream-ca-root=/etc/mesh-ca/upstream/root-cert.pem
- --upstream-ca-token-file=/etc/mesh-ca/upstream/token
{{- else -}}
{{- fail (printf "registration.signer is %q: it has to be \"cert-manager\", \"kubernetes\" or \"istio\"" $registration.signer) -}}
{{- end }}
{{- with $registration.timeout }}
- --signer-timeout={{ . }}
{{- end }}
{{- if include "mesh-ca.hasRoots" . }}
- --root-ca-file=/etc/mesh-ca/roots/{{ $registration.roots.key }}
{{- end }}
{{- end -}}

{{- /* Whether the signer of the workloads says who approves. */ -}}
{{- define "mesh-ca.signerApproves" -}}
{{- if and (eq .Values.mode "registration") (ne .Values.registration.signer "istio") }}yes{{ end -}}
{{- end -}}

{{- /* Signers of Kubernetes that we may approve for. */ -}}
{{- define "mesh-ca.approvedSigners" -}}
{{- $names := list -}}
{{- $registration := .Values.registration -}}
{{- $approve := .Values.servingCertificate.approve -}}
{{- if include "mesh-ca.signerApproves" . -}}
{{- $approve = ternary $registration.kubernetes.approve $registration.certManager.approve (eq $registration.signer "kubernetes") -}}
{{- end -}}
{{- if and (eq .Values.mode "registration") (eq $registration.signer "kubernetes") -}}
{{- with $registration.kubernetes.signerName }}{{ $names = append $names . }}{{ end -}}
{{- with $registration.kubernetes.signerDomain }}{{ $names = append $names (printf "%s/*" .) }}{{ end -}}
{{- if not $names }}{{ fail "registration.kubernetes.signerName or signerDomain is needed" }}{{ end -}}
{{- end -}}
{{- with .Values.servingCertificate.signer }}{{ $names = append $names . }}{{ end -}}
{{- if not $approve }}{{ $names = list }}{{ end -}}
{{- toJson $names -}}
{{- end -}}

{{- /* The same of cert-manager, as its webhook asks for them. */ -}}
{{- define "mesh-ca.issuerNames" -}}
{{- with .Values.registration.certManager -}}
{{- $of := printf "%ss.%s" (lower .issuer.kind) .issuer.group -}}
{{- $name := .issuer.name -}}
{{- if not (contains "Cluster" .issuer.kind) }}{{ $name = printf "%s.%s" .namespace .issuer.name }}{{ end -}}
{{- toJson (default (list (printf "%s/%s" $of $name)) .approveSignerNames) -}}
{{- end -}}
{{- end -}}
