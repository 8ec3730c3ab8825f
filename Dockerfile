# groatd and groat in a container. Untested: it was written where there is no Docker.
#
#   docker build -t groat .
#   docker run -d --name groat --stop-timeout 600 -v groat:/data -p 8333:8333 groat --chain=main
#   docker exec groat groat --chain=main --datadir=/data status
FROM rust:1.95.0-bookworm AS build
# The image has this toolchain; without the name, rustup would fetch the components that only development needs.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN apt-get update && apt-get install -y --no-install-recommends g++ libclang-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /groat
COPY . .
RUN cargo install --locked --root /out --path node && cargo install --locked --root /out --path wallet

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends libstdc++6 && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 8333 --home-dir /data --create-home groat
COPY --from=build /out/bin/groatd /out/bin/groat /usr/local/bin/
USER groat
VOLUME /data
EXPOSE 8333 18333 38333 48333
ENTRYPOINT ["groatd", "--datadir=/data"]
