-- What the provider now says about a machine; NULL says nothing, and keeps the stored value.
UPDATE machine_provided
SET provider_reservation_id = COALESCE($3, provider_reservation_id),
    provider_ip_address = COALESCE($4, provider_ip_address),
    provider_location = COALESCE($5, provider_location),
    provider_status = COALESCE($6, provider_status)
WHERE provider = $1 AND provider_id = $2;
