# RabbitMQ where the official image cannot be pulled: Debian's packages behind the official image's interface. The user
# and its password are in the configuration that is mounted into /etc/rabbitmq/conf.d.
ARG BASE=openaperture/debian:12
FROM ${BASE}
RUN rabbitmq-plugins enable --offline rabbitmq_management >/dev/null && install -d -o rabbitmq -g rabbitmq /etc/rabbitmq/conf.d && \
    chown -R rabbitmq:rabbitmq /etc/rabbitmq /var/lib/rabbitmq
USER rabbitmq
ENV HOME=/var/lib/rabbitmq RABBITMQ_LOGS=- LANG=C.UTF-8
VOLUME /var/lib/rabbitmq
ENTRYPOINT ["/usr/lib/rabbitmq/bin/rabbitmq-server"]
