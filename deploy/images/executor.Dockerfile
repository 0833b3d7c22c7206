# An executor fetches deployment repositories with git. Of Debian it gets git, ssh, the shell that git starts ssh with, and
# the libraries that they load: no package manager, nothing else to run. The context is bin/.
ARG BASE=openaperture/debian:12
FROM ${BASE} AS git
RUN set -e; mkdir -p /out/usr/bin /out/usr/lib/git-core /out/usr/share/git-core/templates /out/bin /out/etc/ssl/certs /out/state; \
    cp /usr/bin/git /usr/bin/ssh /out/usr/bin/; ln -s git /out/usr/bin/git-upload-pack; \
    cp /bin/dash /out/bin/sh; cp /bin/false /out/bin/; \
    cp /usr/lib/git-core/git-remote-http /out/usr/lib/git-core/; ln -s git-remote-http /out/usr/lib/git-core/git-remote-https; ln -s ../../bin/git /out/usr/lib/git-core/git; \
    cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/; \
    echo 'openaperture:x:65532:65532::/nonexistent:/bin/false' >/out/etc/passwd; \
    ldd /usr/bin/git /usr/bin/ssh /usr/lib/git-core/git-remote-http /bin/dash | grep -o '/[^ ]*\.so[^ ]*' | sort -u | xargs -I{} cp -L --parents {} /out; \
    chown 65532:65532 /out/state

FROM scratch
ARG SERVICE
ARG VERSION=dev
LABEL org.opencontainers.image.title=openaperture/${SERVICE} org.opencontainers.image.version=${VERSION}
ENV PATH=/usr/bin:/bin
COPY --from=git /out/ /
COPY --from=git --chown=65532:65532 /out/state /var/lib/openaperture
COPY ${SERVICE} /app
USER 65532:65532
HEALTHCHECK --interval=5s --timeout=3s --retries=3 CMD ["/app", "--config", "/etc/openaperture.yaml", "healthcheck", "ready"]
ENTRYPOINT ["/app"]
CMD ["--config", "/etc/openaperture.yaml"]
