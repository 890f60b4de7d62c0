-- All machines of one provider.
SELECT machine_id, provider, provider_id, provider_reservation_id, provider_ip_address, provider_location,
       provider_status
FROM machine_provided
WHERE provider = $1
ORDER BY machine_id;
