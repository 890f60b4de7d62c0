-- The machine exists at a provider. An earlier row of the machine is replaced whole.
INSERT INTO machine_provided (machine_id, provider, provider_id, provider_reservation_id, provider_ip_address,
                              provider_location, provider_status)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (machine_id) DO UPDATE
SET provider = excluded.provider,
    provider_id = excluded.provider_id,
    provider_reservation_id = excluded.provider_reservation_id,
    provider_ip_address = excluded.provider_ip_address,
    provider_location = excluded.provider_location,
    provider_status = excluded.provider_status;
