{{- define "fallow-provider.selector" -}}
app.kubernetes.io/name: fallow-provider
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fallow-provider.labels" -}}
{{ include "fallow-provider.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "fallow-provider.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}
