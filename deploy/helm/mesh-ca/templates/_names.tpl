{{- define "mesh-ca.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Roles of the whole cluster are one for each release, wherever it is. */ -}}
{{- define "mesh-ca.clusterName" -}}
{{- printf "%s-%s" (include "mesh-ca.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "mesh-ca.serviceAccount" -}}
{{- default (include "mesh-ca.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "mesh-ca.service" -}}
{{- default (include "mesh-ca.fullname" .) .Values.service.name -}}
{{- end -}}

{{- define "mesh-ca.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mesh-ca.labels" -}}
{{ include "mesh-ca.selector" . }}
app.kubernetes.io/component: {{ .Values.mode }}
app.kubernetes.io/part-of: mesh-ca
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "mesh-ca.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "mesh-ca.subject" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "mesh-ca.serviceAccount" . }}
    namespace: {{ .Release.Namespace }}
{{- end -}}

{{- /* Every name that an agent may know it by. */ -}}
{{- define "mesh-ca.dnsNames" -}}
{{- $name := include "mesh-ca.service" . -}}
{{- $names := list (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- join "," (concat $names .Values.dnsNames | uniq) -}}
{{- end -}}
