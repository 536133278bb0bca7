{{- define "fallow.services" -}}order bidding settlement{{- end }}

{{- define "fallow.name" -}}
{{- printf "%s-%s" (.root.Release.Name | trunc 40 | trimSuffix "-") .service -}}
{{- end }}

{{- define "fallow.image" -}}
{{- $image := .root.Values.image -}}
{{- $name := printf "%sfallow/%s" $image.registry .service -}}
{{- with index $image.digests .service -}}
{{ $name }}@{{ . }}
{{- else -}}
{{ $name }}:{{ $image.tag | default $.root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "fallow.selector" -}}
app.kubernetes.io/name: fallow
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service }}
{{- end }}

{{- define "fallow.labels" -}}
{{ include "fallow.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "fallow.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "fallow.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Settings of a service; `owner` takes the address of the database's owner, for migrations. */}}
{{- define "fallow.environment" -}}
{{- $values := .root.Values -}}
{{- $service := .service -}}
- {name: FALLOW_LISTEN, value: "0.0.0.0:7300"}
- {name: FALLOW_LOG_FORMAT, value: json}
- name: FALLOW_DATABASE_URL
  valueFrom:
    secretKeyRef: {name: {{ ternary $values.secrets.databaseOwners $values.secrets.databases .owner | quote }}, key: {{ $service }}}
{{- if .owner }}
{{- with index $values.servingRole $service }}
- {name: FALLOW_SERVING_ROLE, value: {{ . | quote }}}
{{- end }}
{{- else }}
- {name: FALLOW_NATS_URL, value: {{ required "nats.url: where NATS is" $values.nats.url | quote }}}
- {name: FALLOW_NATS_CREDENTIALS_FILE, value: /etc/fallow/nats/service.creds}
- {name: FALLOW_IDENTITY_KEY_FILE, value: /etc/fallow/identity/service.pem}
- {name: FALLOW_JWKS, value: /etc/fallow/jwks/jwks.json}
{{- with $values.stream.url }}
- {name: FALLOW_STREAM_URL, value: {{ . | quote }}}
{{- end }}
{{- with $values.otlpEndpoint }}
- {name: FALLOW_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
- {name: FALLOW_DRAIN_WAIT_SECONDS, value: {{ $values.drain.waitSeconds | quote }}}
- {name: FALLOW_DRAIN_SECONDS, value: {{ $values.drain.seconds | quote }}}
{{- range $other := splitList " " (include "fallow.services" .root) }}
{{- if ne $other $service }}
{{- $inside := printf "%s:7300" (include "fallow.name" (dict "root" $.root "service" $other)) }}
{{- /* Bidding tells providers where the order service is, and they are outside. */}}
{{- $outside := and (eq $service "bidding") (eq $other "order") $values.publicAddresses.order }}
- {name: FALLOW_{{ upper $other }}_ADDRESS, value: {{ $outside | default $inside | quote }}}
{{- end }}
{{- end }}
{{- if eq $service "order" }}
- name: FALLOW_WORKLOAD_KEYS
  valueFrom:
    secretKeyRef: {name: {{ $values.secrets.workloadKeys | quote }}, key: keys}
{{- end }}
{{- if eq $service "bidding" }}
- {name: FALLOW_NATS_ACCOUNT_SEED_FILE, value: /etc/fallow/nats/account.seed}
{{- with $values.nats.providerUrl }}
- {name: FALLOW_PROVIDER_NATS_URL, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- if and (eq $service "settlement") $values.secrets.chain }}
- name: FALLOW_CHAIN_RPC_URL
  valueFrom:
    secretKeyRef: {name: {{ $values.secrets.chain | quote }}, key: rpc-url}
- {name: FALLOW_CHAIN_KEY_FILE, value: /etc/fallow/chain/key}
- {name: FALLOW_CONTRACTS_FILE, value: /etc/fallow/contracts/contracts.json}
- {name: FALLOW_CHAIN_CONFIRMATIONS, value: {{ $values.chain.confirmations | quote }}}
{{- with $values.chain.publicRpcUrl }}
- {name: FALLOW_CHAIN_PUBLIC_RPC_URL, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- range $name, $value := (index $values.services $service).settings }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}
{{- end }}
